"""The twin: a consumer of the journal that maps measurements to entities and keeps newest state and history.

The history holds every reading as integers; entities of past instants are mapped when they are asked for. Only the
newest reading of a device in a batch is mapped and stored as its entity, since the ones before it are overwritten.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import orjson

from flexrelay.journal.port import Entry
from flexrelay.journal.registers import NAMES
from flexrelay.store import Store, insert_rows
from flexrelay.twin.energy import Exchange
from flexrelay_schemas.entities import DeviceInfo, map_measurement
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance

_LOG = logging.getLogger(__name__)

Describe = Callable[[str], DeviceInfo | None]
"""What is known of a device by its DID; None counts as a plain meter."""

COLUMNS: Final = "observed_at, seq, provenance, notice, " + ", ".join(NAMES)
_READING: Final = f"twin_reading (device, position, {COLUMNS})"
_NEWER: Final = (
    "ON CONFLICT (device) DO UPDATE SET observed_at = excluded.observed_at, entity = excluded.entity "
    "WHERE excluded.observed_at >= twin_entity.observed_at"
)

PRUNE_AT_ONCE: Final = 100
"""Devices whose old readings are dropped in one transaction."""

_NEWEST: Final = (
    "observed_at IS NOT (SELECT observed_at FROM twin_reading WHERE device = ?{} ORDER BY observed_at DESC LIMIT 1)"
)
_PRUNE: Final = "DELETE FROM twin_reading WHERE device = ? AND observed_at < ? AND " + " AND ".join(  # noqa: S608
    [_NEWEST.format(having) for having in ("", " AND import_j IS NOT NULL", " AND export_j IS NOT NULL")]
)


class Twin:
    """A `journal.Consumer` in a store with the component TWIN. Make it with `open`."""

    name = "twin"

    def __init__(self, store: Store, describe: Describe) -> None:
        self._store = store
        self._describe = describe
        self._position = 0
        self._ids: dict[str, int] = {}
        self.exchanges: dict[str, tuple[Exchange, ...]] = {}
        """Declared meter exchanges and roll-overs by DID, ascending; change them with `declare`."""

    @classmethod
    async def open(cls, store: Store, describe: Describe) -> Self:
        twin = cls(store, describe)

        def load(connection: sqlite3.Connection) -> tuple[int, list[tuple[int, str]], list[tuple[Any, ...]]]:
            return (
                connection.execute("SELECT position FROM twin_position").fetchone()[0],
                connection.execute("SELECT id, did FROM twin_device").fetchall(),
                connection.execute("SELECT * FROM twin_exchange ORDER BY did, at").fetchall(),
            )

        twin._position, devices, exchanges = await store.read(load)
        twin._ids = {did: number for number, did in devices}
        for did, *values in exchanges:
            twin.exchanges[did] = (*twin.exchanges.get(did, ()), Exchange(*values))
        return twin

    @property
    def position(self) -> int:
        return self._position

    def number(self, did: str) -> int | None:
        """The device's number in the tables; None when it has no reading."""
        return self._ids.get(did)

    async def consume(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        newest: dict[str, Measurement] = {}
        readings: list[tuple[str, int, Measurement]] = []
        for entry in entries:
            did = entry.did
            for measurement in entry.measurements:
                readings.append((did, entry.position, measurement))
                best = newest.get(did)
                if best is None or measurement.observed_at > best.observed_at:
                    newest[did] = measurement
        unknown = [did for did in newest if did not in self._ids]
        entities = [
            (did, measurement.observed_at, text)
            for did, measurement in newest.items()
            if (text := self._entity_text(did, measurement)) is not None
        ]
        position = entries[-1].position

        def store(connection: sqlite3.Connection) -> dict[str, int]:
            added = {did: _add_device(connection, did) for did in unknown}
            ids = self._ids
            rows = [_row(ids.get(did) or added[did], at, m) for did, at, m in readings]
            insert_rows(connection, _READING, rows, "ON CONFLICT DO NOTHING")
            newer = [(ids.get(did) or added[did], at, text) for did, at, text in entities]
            insert_rows(connection, "twin_entity", newer, _NEWER)
            connection.execute("UPDATE twin_position SET position = ?", (position,))
            return added

        self._ids.update(await self._store.write(store))
        self._position = position

    async def newest(self, did: str) -> Measurement | None:
        """The reading with the latest instant."""
        found = await self._select(did, "ORDER BY observed_at DESC LIMIT 1")
        return found[0] if found else None

    async def entity(self, did: str) -> Mapping[str, Any] | None:
        """The newest reading as a normalized NGSI-LD entity."""
        number = self._ids.get(did)
        row = await self._store.read(
            lambda connection: connection.execute(
                "SELECT entity FROM twin_entity WHERE device = ?", (number,)
            ).fetchone()
        )
        return None if row is None else orjson.loads(row[0])

    async def history(self, did: str, start: int, end: int, limit: int = 10_000) -> list[Measurement]:
        """Readings with instants in [start, end], ascending, at most `limit`."""
        return await self._select(
            did, "AND observed_at BETWEEN ? AND ? ORDER BY observed_at LIMIT ?", start, end, limit
        )

    async def last(self, did: str, start: int, end: int) -> Measurement | None:
        """The newest reading with an instant in [start, end]."""
        found = await self._select(did, "AND observed_at BETWEEN ? AND ? ORDER BY observed_at DESC LIMIT 1", start, end)
        return found[0] if found else None

    async def entities(self, did: str, start: int, end: int, limit: int = 10_000) -> list[Mapping[str, Any]]:
        """`history` as normalized NGSI-LD entities."""
        device = self._describe(did)
        kind = "meter" if device is None else device.kind
        return [map_measurement(kind, found, device) for found in await self.history(did, start, end, limit)]

    async def position_of(self, did: str, observed_at: int) -> int | None:
        """The journal position of the reading at exactly this instant."""
        number = self._ids.get(did)
        query = "SELECT position FROM twin_reading WHERE device = ? AND observed_at = ?"
        row = await self._store.read(lambda connection: connection.execute(query, (number, observed_at)).fetchone())
        return None if row is None else int(row[0])

    async def around(self, did: str, instant: int) -> tuple[Measurement | None, Measurement | None]:
        """(the last reading at or before, the first one after) `instant` among those with both energy registers."""
        both = "AND import_j IS NOT NULL AND export_j IS NOT NULL"
        before = await self._select(did, f"{both} AND observed_at <= ? ORDER BY observed_at DESC LIMIT 1", instant)
        after = await self._select(did, f"{both} AND observed_at > ? ORDER BY observed_at LIMIT 1", instant)
        return (before[0] if before else None), (after[0] if after else None)

    async def declare(self, did: str, exchange: Exchange) -> None:
        """A meter was exchanged or rolled over: its registers may fall there. Replaces one of the same instant."""
        values = (
            did,
            exchange.at,
            exchange.import_final,
            exchange.import_initial,
            exchange.export_final,
            exchange.export_initial,
        )
        await self._store.write(
            lambda connection: (
                connection.execute("INSERT OR REPLACE INTO twin_exchange VALUES (?, ?, ?, ?, ?, ?)", values).rowcount
            )
        )
        others = [known for known in self.exchanges.get(did, ()) if known.at != exchange.at]
        self.exchanges[did] = tuple(sorted([*others, exchange], key=lambda known: known.at))

    async def prune(self, before: int) -> int:
        """Forget readings observed before this instant (market time, UTC ms); how many.

        A device's newest reading stays, and its newest one with each cumulative register: the next one is judged by
        them. A few devices in one transaction, so that the store's other writers need not wait long.
        """
        numbers = list(self._ids.values())
        count = 0
        for offset in range(0, len(numbers), PRUNE_AT_ONCE):
            chunk = [(number, before, number, number, number) for number in numbers[offset : offset + PRUNE_AT_ONCE]]
            count += await self._store.write(
                lambda connection, chunk=chunk: connection.executemany(_PRUNE, chunk).rowcount  # type: ignore[misc]  # this turn's
            )
        return count

    async def _select(self, did: str, rest: str, *values: int) -> list[Measurement]:
        number = self._ids.get(did)
        if number is None:
            return []
        query = f"SELECT {COLUMNS} FROM twin_reading WHERE device = ? {rest}"  # noqa: S608
        rows = await self._store.read(lambda connection: connection.execute(query, (number, *values)).fetchall())
        return [measurement_of(did, row) for row in rows]

    def _entity_text(self, did: str, measurement: Measurement) -> str | None:
        device = self._describe(did)
        try:
            entity = map_measurement("meter" if device is None else device.kind, measurement, device)
            return orjson.dumps(entity).decode()
        except ValueError as error:  # a wrong description of one device; its readings are kept all the same
            _LOG.error("%s has no entity: %s", did, error)
            return None


def measurement_of(did: str, row: Sequence[Any]) -> Measurement:
    """A row of COLUMNS as a measurement."""
    registers = {name: value for name, value in zip(NAMES, row[4:], strict=True) if value is not None}
    return Measurement(did, row[0], registers, None if row[1] < 0 else row[1], Provenance(row[2]), Notice(row[3]))


def _row(number: int, position: int, measurement: Measurement) -> tuple[int | None, ...]:
    get = measurement.registers.get
    seq = measurement.seq
    return (
        number,
        position,
        measurement.observed_at,
        -1 if seq is None else seq,
        int(measurement.provenance),  # SQLite takes a plain integer twice as fast as an enumeration's
        int(measurement.notice),
        *[get(name) for name in NAMES],
    )


def _add_device(connection: sqlite3.Connection, did: str) -> int:
    row = connection.execute(
        "INSERT INTO twin_device (did) VALUES (?) ON CONFLICT (did) DO UPDATE SET did = did RETURNING id", (did,)
    ).fetchone()
    return int(row[0])
