"""Windows: every reading becomes a salted leaf; a device's leaves of one market interval become a root.

`consume` (a journal consumer) makes leaves. `close` makes window revisions of the intervals that ended a grace ago;
a reading that comes later makes revision n + 1, which names the root of n. `anchor` makes one root over all window
revisions that are not anchored yet; `hand_over` gives it to the outbox in the transaction that marks it as given.
Every step is all or nothing on disk, and the same journal and vault give the same bytes again.
"""

import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from flexrelay.journal.port import Entry
from flexrelay.store import Store, insert_rows
from flexrelay.windows.calendar import Calendar
from flexrelay.windows.vault import Vault, period_of, salt_of
from flexrelay_contracts.rules import merkle
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.evidence import Window

ANCHOR: Final = "evidence.anchor"

CLOSE_AT_ONCE: Final = 200
"""Windows that are closed in one transaction: the store's other writers wait no longer than for these."""


Counts = Callable[[str, int], bool]
"""Whether a reading of this DID and instant (market time, UTC ms) may be anchored now; asked from any thread."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The arguments of `evidence.anchor`: one root over `windows` windows with `leaves` readings in all."""

    anchor_id: str
    root: str
    windows: int
    leaves: int
    first_ms: int
    last_ms: int

    def args(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Closed:
    """What one `close` did. `withheld` readings wait because they do not count (their device was suspended or
    deactivated when it observed them), `undated` ones because their day is not in the calendar."""

    windows: int
    leaves: int
    withheld: int
    undated: int


class Windows:
    """A `journal.Consumer` in a store with the component WINDOWS. Make it with `open`."""

    name = "windows"

    def __init__(
        self,
        store: Store,
        vault: Vault,
        calendar: Calendar,
        counts: Counts,
        grace_ms: int,
    ) -> None:
        """`grace_ms` is market time after an interval's end."""
        self._store = store
        self._vault = vault
        self._calendar = calendar
        self._counts = counts
        self._grace_ms = grace_ms
        self._position = 0
        self._ids: dict[str, int] = {}

    @classmethod
    async def open(cls, *arguments: Any, **named: Any) -> Self:
        """Arguments as of the class."""
        windows = cls(*arguments, **named)
        query = "SELECT position FROM window_position"
        windows._position = await windows._store.read(lambda connection: connection.execute(query).fetchone()[0])
        return windows

    @property
    def position(self) -> int:
        return self._position

    def due_until(self, now: int) -> int:
        """The end of the last interval that is due for closing at `now` (market time, UTC ms); -1 when none is."""
        return self._calendar.ended_by(now - self._grace_ms)

    async def consume(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        evidence = [
            (entry.did, item.observed_at, entry.position, data)
            for entry in entries
            for item, data in self._vault.evidence(entry)
        ]
        secrets = self._vault.secrets({(did, period_of(observed_at)) for did, observed_at, _, _ in evidence})
        leaves = []
        for did, observed_at, position, data in evidence:
            secret = secrets[did, period_of(observed_at)]
            if secret is not None:  # erased: nothing of this device and month is anchored any more
                leaves.append((did, observed_at, position, merkle.leaf_hash(salt_of(secret, observed_at, data), data)))
        position = entries[-1].position

        def store(connection: sqlite3.Connection) -> dict[str, int]:
            added = _device_ids(connection, {did for did, *_ in leaves if did not in self._ids})
            ids = {**self._ids, **added} if added else self._ids
            rows = [(ids[did], observed_at, at, digest) for did, observed_at, at, digest in leaves]
            into = "window_leaf (device, observed_at, position, hash)"
            insert_rows(connection, into, rows, "ON CONFLICT DO NOTHING")
            connection.execute("UPDATE window_position SET position = ?", (position,))
            return added

        self._ids.update(await self._store.write(store))
        self._position = position

    async def close(self, now: int) -> Closed:
        """Close every interval that ended `grace_ms` before `now` (market time, UTC ms) and has new readings."""
        due, withheld, undated = await self._store.read(lambda connection: self._due(connection, now))
        windows = leaves = 0
        for offset in range(0, len(due), CLOSE_AT_ONCE):
            chunk = due[offset : offset + CLOSE_AT_ONCE]
            counts = await self._store.write(
                lambda connection, chunk=chunk: [  # type: ignore[misc]  # the chunk of this turn
                    _close_window(connection, window, self._counts) for window in chunk
                ]
            )
            windows += sum(1 for count in counts if count)
            leaves += sum(counts)
        return Closed(windows, leaves, withheld, undated)

    async def anchor(self, now: int) -> Anchor | None:
        """One anchor over all closed windows that have none; None when there are none."""
        return await self._store.write(lambda connection: _anchor(connection, now))

    async def pending(self) -> list[Anchor]:
        """Anchors that were not handed over yet, oldest first."""
        return await self._store.read(
            lambda connection: [
                Anchor(*row)
                for row in connection.execute(
                    "SELECT id, root, windows, leaves, first_ms, last_ms FROM window_anchor "
                    "WHERE handed = 0 ORDER BY number"
                )
            ]
        )

    async def anchors(self, ids: Sequence[str]) -> list[Anchor]:
        """Those of these ids that are here, oldest first."""
        query = (
            "SELECT id, root, windows, leaves, first_ms, last_ms FROM window_anchor "
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY number"
        )
        rows = await self._store.read(lambda connection: connection.execute(query, (json.dumps(ids),)).fetchall())
        return [Anchor(*row) for row in rows]

    async def hand_over(
        self,
        sign: Callable[[Anchor], Awaitable[bytes]],
        add: Callable[[sqlite3.Connection, Anchor, bytes], object],
    ) -> int:
        """Hand every pending anchor over exactly once; how many.

        `sign` makes the signed intent's bytes (its intent id should be the anchor's id). `add` stores it with
        the given connection, e.g. `Outbox.add_in`: it and the mark are one transaction.
        """
        count = 0
        for anchor in await self.pending():
            intent = await sign(anchor)

            def work(connection: sqlite3.Connection, anchor: Anchor = anchor, intent: bytes = intent) -> int:
                done = connection.execute(
                    "UPDATE window_anchor SET handed = 1 WHERE id = ? AND handed = 0", (anchor.anchor_id,)
                ).rowcount
                if done:
                    add(connection, anchor, intent)
                return done

            count += await self._store.write(work)
        return count

    async def windows(self, did: str, start: int, end: int) -> list[Window]:
        """All revisions of a device's windows that end in (start, end] (UTC ms), in order."""
        query = (
            "SELECT document FROM window_revision WHERE device = (SELECT id FROM window_device WHERE did = ?) "
            "AND end_ms > ? AND end_ms <= ? ORDER BY end_ms, revision"
        )
        rows = await self._store.read(lambda connection: connection.execute(query, (did, start, end)).fetchall())
        return [Window.model_validate_json(row[0]) for row in rows]

    async def counts(self) -> dict[str, int]:
        """leaves, windows (revisions), anchors; for reports and metrics."""
        query = (
            "SELECT (SELECT count(*) FROM window_leaf), (SELECT count(*) FROM window_revision), "
            "(SELECT count(*) FROM window_anchor)"
        )
        row = await self._store.read(lambda connection: connection.execute(query).fetchone())
        return dict(zip(("leaves", "windows", "anchors"), row, strict=True))

    def _due(self, connection: sqlite3.Connection, now: int) -> tuple[list["_Due"], int, int]:
        """Windows to close in a fixed order; how many readings are withheld, and undated."""
        names = dict(connection.execute("SELECT id, did FROM window_device"))
        rows = connection.execute(
            "SELECT device, observed_at FROM window_leaf WHERE since = 0 AND observed_at <= ?", (now - self._grace_ms,)
        )
        due: dict[tuple[int, int], _Due] = {}
        withheld = undated = 0
        start = end = isp = 0
        date = ""
        for device, observed_at in rows:
            if not start < observed_at <= end:  # they come in order of time: mostly the interval of the one before
                interval = self._calendar.interval(observed_at)
                if interval is None:
                    undated += 1
                    continue
                day, isp = interval
                date, (start, end) = day.date, day.bounds(isp)
            if end + self._grace_ms > now:
                continue
            if not self._counts(names[device], observed_at):
                withheld += 1
            elif (end, device) not in due:
                due[end, device] = _Due(end, names[device], device, date, isp, start)
        return sorted(due.values()), withheld, undated


class _Due(NamedTuple):
    end: int
    did: str
    device: int
    date: str
    isp: int
    start: int


def _close_window(connection: sqlite3.Connection, due: _Due, counts: Counts) -> int:
    """Make the next revision of a window; the number of readings that are new in it (0: there is nothing to do)."""
    end, did, device, date, isp, start = due
    last = connection.execute(
        "SELECT revision, document FROM window_revision WHERE device = ? AND end_ms = ? ORDER BY revision DESC LIMIT 1",
        (device, end),
    ).fetchone()
    revision = 1 if last is None else last[0] + 1
    held = connection.execute(
        "SELECT observed_at, hash, since FROM window_leaf WHERE device = ? AND observed_at > ? AND observed_at <= ? "
        "ORDER BY observed_at",
        (device, start, end),
    ).fetchall()
    waiting = {observed_at for observed_at, _, since in held if since == 0}
    fresh = {observed_at for observed_at in waiting if counts(did, observed_at)}
    if not fresh:
        return 0
    if len(fresh) == len(waiting):
        connection.execute(
            "UPDATE window_leaf SET since = ? WHERE device = ? AND observed_at > ? AND observed_at <= ? AND since = 0",
            (revision, device, start, end),
        )
    else:
        connection.executemany(
            "UPDATE window_leaf SET since = ? WHERE device = ? AND observed_at = ?",
            [(revision, device, observed_at) for observed_at in sorted(fresh)],
        )
    rows = [(observed_at, digest) for observed_at, digest, since in held if since or observed_at in fresh]
    window = Window(
        device=did,
        date=date,
        isp=isp,
        revision=revision,
        previous="" if last is None else Window.model_validate_json(last[1]).root,
        leaves=len(rows),
        root=merkle.root([row[1] for row in rows]).hex(),
    )
    connection.execute(
        "INSERT INTO window_revision (device, end_ms, revision, start_ms, document, leaf, leaves, first_ms, last_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            device,
            end,
            revision,
            start,
            canonical(window.model_dump()).decode(),
            window.leaf_hash(),
            len(rows),
            rows[0][0],
            rows[-1][0],
        ),
    )
    return len(fresh)


def _anchor(connection: sqlite3.Connection, now: int) -> Anchor | None:
    rows = connection.execute(
        "SELECT r.device, r.end_ms, r.revision, r.leaf, r.leaves, r.first_ms, r.last_ms FROM window_revision r "
        "JOIN window_device d ON d.id = r.device WHERE r.anchor IS NULL ORDER BY d.did, r.end_ms, r.revision"
    ).fetchall()
    if not rows:
        return None
    root = merkle.root([row[3] for row in rows]).hex()
    first, last = min(row[5] for row in rows), max(row[6] for row in rows)
    anchor = Anchor(f"{last}-{root[:32]}", root, len(rows), sum(row[4] for row in rows), first, last)
    connection.execute(
        "INSERT INTO window_anchor (id, number, root, windows, leaves, first_ms, last_ms, made_at) "
        "VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM window_anchor), ?, ?, ?, ?, ?, ?)",
        (anchor.anchor_id, root, anchor.windows, anchor.leaves, first, last, now),
    )
    connection.executemany(
        "UPDATE window_revision SET anchor = ?, anchor_index = ? WHERE device = ? AND end_ms = ? AND revision = ?",
        [(anchor.anchor_id, index, *row[:3]) for index, row in enumerate(rows)],
    )
    return anchor


def _device_ids(connection: sqlite3.Connection, dids: set[str]) -> dict[str, int]:
    ids = {}
    for did in sorted(dids):
        row = connection.execute("SELECT id FROM window_device WHERE did = ?", (did,)).fetchone()
        if row is None:
            row = connection.execute("INSERT INTO window_device (did) VALUES (?) RETURNING id", (did,)).fetchone()
        ids[did] = row[0]
    return ids
