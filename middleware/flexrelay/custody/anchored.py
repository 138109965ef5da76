"""From an anchor back to a reading under it."""

import sqlite3
from typing import Final

from flexrelay.store import Store

_FIRST: Final = (
    "SELECT d.did, l.observed_at FROM window_revision r JOIN window_device d ON d.id = r.device "
    "JOIN window_leaf l ON l.device = r.device AND l.observed_at > r.start_ms AND l.observed_at <= r.end_ms "
    "AND l.since = r.revision WHERE r.anchor = ? ORDER BY r.anchor_index, l.observed_at LIMIT 1"
)
"""A reading whose first window revision stands under this very anchor, so that its proof leads there."""


async def first_reading(store: Store, anchor_id: str) -> tuple[str, int] | None:
    """(DID, observed_at) of the first reading under an anchor of this gateway; None when it has no such anchor."""

    def work(connection: sqlite3.Connection) -> tuple[str, int] | None:
        row = connection.execute(_FIRST, (anchor_id,)).fetchone()
        return None if row is None else (row[0], row[1])

    return await store.read(work)
