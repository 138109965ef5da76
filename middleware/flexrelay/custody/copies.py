"""The twin's copies of readings, which settlement measures with, against the journal that they were made of."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from flexrelay.journal.port import Entry
from flexrelay.store import Store
from flexrelay.twin import Twin
from flexrelay.twin.twin import COLUMNS, measurement_of

_COPY: Final = (
    f"SELECT r.position, {COLUMNS} FROM twin_reading r JOIN twin_device d ON d.id = r.device "  # noqa: S608 - constants
    "WHERE d.did = ? AND r.observed_at = ?"
)
Problem = Callable[[str], None]


class Copies:
    """Compares batch by batch, then what is left. A copy that was pruned is no problem, a changed one is."""

    def __init__(self, store: Store, twin: Twin, problem: Problem) -> None:
        self._store = store
        self._twin = twin
        self._problem = problem
        self._same = 0

    async def compare(self, entries: Sequence[Entry]) -> None:
        readings = [(entry, item) for entry in entries for item in entry.measurements]

        def select(connection: sqlite3.Connection) -> list[Any]:
            return [connection.execute(_COPY, (entry.did, item.observed_at)).fetchone() for entry, item in readings]

        for (entry, item), row in zip(readings, await self._store.read(select), strict=True):
            if row is None:
                continue
            try:
                same = row[0] == entry.position and measurement_of(entry.did, row[1:]) == item
            except (ValueError, TypeError):  # a provenance or notice that does not exist
                same = False
            if not same:
                self._problem(f"the twin's reading of {entry.did} at {item.observed_at} is not the journal's")
            self._same += 1

    async def finish(self, begin: int) -> None:
        """No copy without an entry from `begin` on, and the newest entities as their readings give them."""
        query = "SELECT count(*) FROM twin_reading WHERE position >= ?"
        count = await self._store.read(lambda connection: connection.execute(query, (begin,)).fetchone()[0])
        if count > self._same:
            self._problem(f"the twin has {count - self._same} readings that are not in the journal")
        rows = await self._store.read(
            lambda connection: connection.execute("SELECT did FROM twin_device ORDER BY did").fetchall()
        )
        for (did,) in rows:
            try:
                stored, newest = await self._twin.entity(did), await self._twin.newest(did)
                given = [] if newest is None else await self._twin.entities(did, newest.observed_at, newest.observed_at)
            except (ValueError, TypeError) as error:
                self._problem(f"the twin's newest entity of {did} is damaged: {error}")
                continue
            if stored is not None and (not given or json.loads(json.dumps(given[0])) != stored):
                self._problem(f"the twin's newest entity of {did} is not what its newest reading gives")
