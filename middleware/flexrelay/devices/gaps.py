"""Stretches in which readings may be missing: from a device's newest reading before an outage to its first one after.

When the gateway starts, and when an adapter that reads histories has been without its connection for a while, a gap is
noted for each of its devices that has told something before. Once the adapter is connected again the gap's end is
found, it is read, and forgotten. The notes are on disk: a gateway that is killed in the middle goes on with them.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from flexrelay.devices.bindings import credentials_at
from flexrelay.devices.enrolments import DeviceRecord, Enrolments
from flexrelay.devices.history import HistoryRefused, Stretch, fill
from flexrelay.ingest import HistoryUnavailable, Ingest, RegisterChecks
from flexrelay.journal.port import Journal, JournalUnavailable
from flexrelay.store import Component, Migration, Store, StoreUnavailable
from flexrelay_sdk import Adapter, Backfiller, SinkUnavailable

log = logging.getLogger(__name__)

GAPS: Final = Component(
    "gaps",
    (
        Migration(
            1,
            "stretches in which readings may be missing",
            (
                """CREATE TABLE reading_gap (
                    tenant TEXT NOT NULL, adapter TEXT NOT NULL, did TEXT NOT NULL, from_ms INTEGER NOT NULL,
                    until_ms INTEGER, tries INTEGER NOT NULL DEFAULT 0,
                    PRIMARY KEY (tenant, adapter, did, from_ms)) STRICT, WITHOUT ROWID""",
            ),
        ),
    ),
)
MOST: Final = 100_000
"""Gaps noted at a gateway; beyond it no more are."""
TRIES: Final = 5
"""A gap that could not be read so often, or during which the connection was lost, is given up."""
SETTLE_S: Final = 5.0
"""After the adapter is connected: what it catches up by itself, and the newest values, come first."""
RETRY_S: Final = 60.0
AWAY_S: Final = 30.0
"""A connection that is back earlier left no gap: adapters go on where they were, and no server is asked for the history
of each device because its network flaps."""
PATIENCE_S: Final = 600.0
"""What reading one gap may take."""
_LOOK_S: Final = 1.0
_AT_ONCE: Final = 100
"""Gaps between two writes, and before others get their turn."""
_NOTE: Final = (
    "INSERT INTO reading_gap (tenant, adapter, did, from_ms) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (tenant, adapter, did, from_ms) DO UPDATE SET until_ms = NULL"
)
_WHERE: Final = "WHERE tenant = ? AND adapter = ? AND did = ? AND from_ms = ?"
_BOUND: Final = f"UPDATE reading_gap SET until_ms = ? {_WHERE}"  # noqa: S608 - constants
_FAILED: Final = f"UPDATE reading_gap SET tries = tries + 1 {_WHERE}"  # noqa: S608 - constants
_FORGET: Final = f"DELETE FROM reading_gap {_WHERE}"  # noqa: S608 - constants


class Gap(NamedTuple):
    """[from_ms, until_ms) of market time; `until_ms` is None before the first try. `tries` have failed."""

    did: str
    from_ms: int
    until_ms: int | None
    tries: int


class Gaps:
    """One tenant's, in a store with the component GAPS."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant

    async def note(self, adapter: str, begins: Mapping[str, int]) -> None:
        """A gap of each device (DID) begins at this instant; one that is noted already is open again: nothing has come
        since."""
        rows = [(self._tenant, adapter, did, begin) for did, begin in begins.items()]

        def write(connection: sqlite3.Connection) -> None:
            count = "SELECT count(*) FROM reading_gap WHERE tenant = ?"
            room = MOST - int(connection.execute(count, (self._tenant,)).fetchone()[0])
            connection.executemany(_NOTE, rows[: max(room, 0)])

        if rows:
            await self._store.write(write)

    async def of(self, adapter: str) -> list[Gap]:
        """By device and instant."""
        query = "SELECT did, from_ms, until_ms, tries FROM reading_gap WHERE tenant = ? AND adapter = ? ORDER BY 1, 2"
        values = (self._tenant, adapter)
        rows = await self._store.read(lambda connection: connection.execute(query, values).fetchall())
        return [Gap(*row) for row in rows]

    async def bound(self, adapter: str, gaps: Sequence[Gap]) -> None:
        """Keep their ends: readings that fill them in would move them."""
        await self._change(_BOUND, [(gap.until_ms, *self._place(adapter, gap)) for gap in gaps])

    async def failed(self, adapter: str, gap: Gap) -> None:
        await self._change(_FAILED, [self._place(adapter, gap)])

    async def forget(self, adapter: str, gaps: Sequence[Gap]) -> None:
        await self._change(_FORGET, [self._place(adapter, gap) for gap in gaps])

    async def forget_all(self, adapter: str) -> None:
        values = (self._tenant, adapter)
        statement = "DELETE FROM reading_gap WHERE tenant = ? AND adapter = ?"
        await self._store.write(lambda connection: connection.execute(statement, values).rowcount)

    def _place(self, adapter: str, gap: Gap) -> tuple[str, str, str, int]:
        return self._tenant, adapter, gap.did, gap.from_ms

    async def _change(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            await self._store.write(lambda connection: connection.executemany(statement, rows).rowcount)


@dataclass(frozen=True)
class GapFilling:
    """Notes and fills the gaps of a gateway's devices. What is older than `reach_ms` is not read any more."""

    gaps: Gaps
    devices: Enrolments
    checks: RegisterChecks
    ingest: Ingest
    journal: Journal
    market_now: Callable[[], int]
    reach_ms: int

    async def note(self, adapters: Mapping[str, Adapter]) -> None:
        """Before the adapters of these names take anything."""
        for name, adapter in adapters.items():
            if isinstance(adapter, Backfiller) and self.reach_ms:
                await self._note(name, self._begins(name, adapter))

    async def keep(self, adapters: Mapping[str, Adapter]) -> None:
        """For ever, while the adapters run."""
        if self.reach_ms:
            async with asyncio.TaskGroup() as group:
                for name, adapter in adapters.items():
                    if isinstance(adapter, Backfiller):
                        group.create_task(self._watch(name, adapter), name=f"gaps of {name}")

    async def _watch(self, name: str, adapter: Any) -> None:
        while True:
            await _while(lambda: not adapter.connected)
            await asyncio.sleep(SETTLE_S)
            while adapter.connected:
                left = await self._fill(name, adapter)
                await _while(lambda: adapter.connected, RETRY_S if left else None)
            begins = self._begins(name, adapter)
            await _while(lambda: not adapter.connected, AWAY_S)
            if not adapter.connected:
                while not await self._note(name, begins):  # noqa: ASYNC110 - the store tells nobody
                    await asyncio.sleep(RETRY_S)

    async def _note(self, name: str, begins: Mapping[str, int]) -> bool:
        """Whether they are on disk."""
        try:
            await self.gaps.note(name, begins)
        except StoreUnavailable as error:
            log.warning("%s: gaps in the readings cannot be noted now: %s", name, error)
            return False
        return True

    async def _fill(self, name: str, adapter: Any) -> bool:
        """Whether something is left for later."""
        try:
            try:
                gaps = await self._bounded(name)
                for offset in range(0, len(gaps), _AT_ONCE):
                    if not await self._fill_some(name, adapter, gaps[offset : offset + _AT_ONCE]):
                        return True
            except HistoryRefused as why:
                log.info("%s: gaps in the readings stay: %s", name, why)
                await self.gaps.forget_all(name)
            return bool(await self.gaps.of(name))
        except (StoreUnavailable, HistoryUnavailable, JournalUnavailable, SinkUnavailable) as error:
            log.warning("%s: gaps in the readings cannot be filled now: %s", name, error)
            return True

    async def _bounded(self, name: str) -> list[Gap]:
        """What is noted, each with its end."""
        gaps = []
        for number, gap in enumerate(await self.gaps.of(name), 1):
            now = self.market_now()
            following = self.checks.following(gap.did, gap.from_ms) if gap.until_ms is None else None
            until = gap.until_ms if gap.until_ms is not None else now if following is None else min(following, now)
            gaps.append(gap._replace(until_ms=until))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        await self.gaps.bound(name, gaps)
        return gaps

    async def _fill_some(self, name: str, adapter: Any, gaps: Sequence[Gap]) -> bool:
        """Whether the adapter was there for all of them."""
        over = []
        try:
            for gap in gaps:
                if not adapter.connected:
                    return False
                if await self._fill_one(name, adapter, gap):
                    over.append(gap)
            return True
        finally:
            await self.gaps.forget(name, over)

    async def _fill_one(self, name: str, adapter: Any, gap: Gap) -> bool:
        """Whether nothing more is to be done about it."""
        now = self.market_now()
        until = now if gap.until_ms is None else gap.until_ms
        begin = max(gap.from_ms, now - self.reach_ms)
        record = self.devices.get(gap.did)
        named = () if record is None or not self._taken(record) else credentials_at(adapter, record)
        if begin < until and named and gap.tries < TRIES:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    done = await fill(adapter, self.ingest, self.journal, Stretch(begin, until, named))
            except (ConnectionError, TimeoutError) as error:
                log.info("%s: the history of %s cannot be read: %s", name, gap.did, error or "it took too long")
                # also when the connection is gone: it may be the question that ends it
                await self.gaps.failed(name, gap)
                return False
            except (HistoryRefused, StoreUnavailable, HistoryUnavailable, JournalUnavailable, SinkUnavailable):
                raise
            except Exception:  # somebody else's code, in the outermost loop of a side matter
                log.exception("%s: the history of %s cannot be read", name, gap.did)
                await self.gaps.failed(name, gap)
                return False
            else:
                if done.stored or done.refused:
                    log.info("%s: a gap of %s from %s until %s is read: %s", name, gap.did, begin, until, done)
        elif gap.tries >= TRIES:
            text = "%s: a gap of %s from %s until %s is given up; flexrelay device backfill asks for it again"
            log.warning(text, name, gap.did, gap.from_ms, until)
        return True

    def _begins(self, name: str, adapter: Any) -> dict[str, int]:
        """DID → instant after the newest reading, of the adapter's devices."""
        begins = {}
        try:
            for record in self.devices:
                if self._taken(record) and credentials_at(adapter, record):  # others' newest readings are not looked up
                    newest = self.checks.newest(record.did)
                    if newest is not None:
                        begins[record.did] = newest + 1
        except HistoryUnavailable as error:
            log.warning("%s: where gaps in the readings begin cannot be looked up now: %s", name, error)
        return begins

    def _taken(self, record: DeviceRecord) -> bool:
        device = self.ingest.registry.device(record.did)
        return device is not None and device.refusal is None


async def _while(condition: Callable[[], bool], most_s: float | None = None) -> None:
    """Until the condition is over, or so many seconds have passed."""
    try:
        async with asyncio.timeout(most_s):
            while condition():  # noqa: ASYNC110 - an adapter tells by a property alone
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return
