"""Gaps that outages leave in readings: noted, bounded, read from the other side's history, over restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.contracts import Party
from support.readings import NOW, IngestPath, PlainCodec, ingest_path

from flexrelay.devices import ENROLMENTS, GAPS, DeviceRecord, Enrolments, Filled, GapFilling, Gaps, Stretch, fill, gaps
from flexrelay.devices.gaps import Gap
from flexrelay.store import Store, StoreUnavailable
from flexrelay_sdk import Codec, Frame, Sink
from flexrelay_sdk.testkit import until

CREDENTIAL = "meter-1"
DEVICE = Party.new("device")
CODEC = PlainCodec()
REACH_MS = 86_400_000


class Keeper:
    """An adapter whose other side keeps a history: instant → power."""

    protocol = "kept"
    name = "plant"

    def __init__(self) -> None:
        self._connected = True
        self.looked = 0
        self.history: dict[int, int] = {}
        self.asked: list[tuple[int, int]] = []
        self.broken: Exception | None = None
        self.breaks_after = 10**9
        """Frames."""

    @property
    def connected(self) -> bool:
        self.looked += 1
        return self._connected

    @connected.setter
    def connected(self, value: bool) -> None:
        self._connected = value

    def channels_for(self, credential: str) -> Sequence[str]:
        return [credential] if credential == CREDENTIAL else []

    def codec_for(self, channel: str) -> Codec | None:
        return CODEC

    async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
        self.asked.append((from_ms, until_ms))
        wanted = sorted(at for at in self.history if from_ms <= at < until_ms)
        for number, at in enumerate(wanted):
            if number == self.breaks_after:
                break
            await sink.put([frame([at], self.history)], CODEC)
        if self.broken is not None:
            raise self.broken
        return len(wanted)


def frame(instants: Sequence[int], values: dict[int, int]) -> Frame:
    return Frame("kept", CREDENTIAL, json.dumps([{"t": at, "power_w": values[at]} for at in instants]).encode(), NOW)


@dataclass
class Gateway:
    path: IngestPath
    filling: GapFilling
    keeper: Keeper

    @property
    def adapters(self) -> dict[str, Keeper]:
        return {"plant": self.keeper}

    async def live(self, *instants: int) -> None:
        for at in instants:
            self.keeper.history[at] = at % 1000
            await self.path.ingest.put([frame([at], self.keeper.history)], CODEC)

    async def stored(self) -> list[int]:
        entries = await self.path.journal.read(0, 1000)
        return [measurement.observed_at for entry in entries for measurement in entry.measurements]

    @asynccontextmanager
    async def filling_in(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.filling.keep(self.adapters))  # type: ignore[arg-type]
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def filled(self) -> None:
        async with asyncio.timeout(60):
            while await self.filling.gaps.of("plant"):  # noqa: ASYNC110 - it is in the store
                await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE_S", "RETRY_S", "AWAY_S", "_LOOK_S"):
        monkeypatch.setattr(gaps, name, 0.01)


@asynccontextmanager
async def gateway(folder: Path, keeper: Keeper, reach_ms: int = REACH_MS) -> AsyncIterator[Gateway]:
    """As after a start: gaps are noted."""
    async with ingest_path(folder, DEVICE) as path, Store(folder / "store.db", [ENROLMENTS, GAPS]) as store:
        devices = await Enrolments.open(store, "a", path.registry)
        await devices.add(DeviceRecord(DEVICE.did, "m1", "meter", (("kept", CREDENTIAL),), unsigned=True))
        now: Callable[[], int] = lambda: path.now[0]  # noqa: E731
        filling = GapFilling(Gaps(store, "a"), devices, path.checks, path.ingest, path.journal, now, reach_ms)
        opened = Gateway(path, filling, keeper)
        await filling.note(opened.adapters)  # type: ignore[arg-type]
        yield opened


async def test_a_restart_reads_from_the_newest_reading_to_the_first_one_after(tmp_path: Path) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as first:
        assert await first.filling.gaps.of("plant") == [], "it has told nothing yet: nothing is missing"
        await first.live(NOW - 9000, NOW - 8000)
    keeper.history |= {NOW - 7000: 1, NOW - 6000: 2}
    async with gateway(tmp_path, keeper) as second:
        await second.live(NOW - 5000, NOW - 4000)
        async with second.filling_in():
            await second.filled()
        assert keeper.asked == [(NOW - 7999, NOW - 5000)]
        assert sorted(await second.stored()) == [NOW - at for at in (9000, 8000, 7000, 6000, 5000, 4000)]
        assert second.path.ingest.outcomes["duplicate"] == 0
    async with gateway(tmp_path, keeper) as third:  # nothing has come: until now
        async with third.filling_in():
            await third.filled()
        assert keeper.asked[1:] == [(NOW - 3999, NOW)]


async def test_only_the_adapters_own_devices_are_looked_up(tmp_path: Path) -> None:
    async with gateway(tmp_path, Keeper()) as opened:
        for number in range(10):
            stranger = Party.new("device").did
            await opened.filling.devices.add(DeviceRecord(stranger, f"m-{number}", "meter", (("mqtt", f"c-{number}"),)))
        await opened.filling.note(opened.adapters)  # type: ignore[arg-type]
        assert len(opened.filling.checks) == 1, "each takes a query of the store, while nothing else runs"


async def test_a_kill_in_the_middle_keeps_the_gap_and_its_end(tmp_path: Path) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as first:
        await first.live(NOW - 9000)
    keeper.history |= {NOW - at: at for at in (8000, 7000, 6000)}
    keeper.broken, keeper.breaks_after = ConnectionError("gone"), 1
    async with gateway(tmp_path, keeper) as second:
        await second.live(NOW - 5000)
        async with second.filling_in(), asyncio.timeout(60):
            while NOW - 8000 not in await second.stored():  # noqa: ASYNC110 - it is in the journal
                await asyncio.sleep(0.01)
    keeper.broken, keeper.breaks_after = None, 10**9
    async with gateway(tmp_path, keeper) as third:
        noted = await third.filling.gaps.of("plant")
        assert [(gap.from_ms, gap.until_ms) for gap in noted] == [(NOW - 8999, NOW - 5000), (NOW - 4999, None)]
        async with third.filling_in():
            await third.filled()
        assert set(await third.stored()) == set(keeper.history)
        assert third.path.ingest.outcomes["duplicate"] == 1  # what the first try had brought


async def test_a_silent_device_whose_gap_could_not_be_read_has_it_until_now(tmp_path: Path) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as first:
        await first.live(NOW - 9000)
        keeper.broken = ConnectionError("gone")
        await first.filling.note(first.adapters)  # type: ignore[arg-type]
        async with first.filling_in():
            await until(lambda: len(keeper.asked) > 0, 60, "a try")
    keeper.broken = None
    async with gateway(tmp_path, keeper) as second:
        second.path.now[0] = NOW + 5000
        keeper.history[NOW + 4000] = 7
        async with second.filling_in():
            await second.filled()
        assert NOW + 4000 in await second.stored()


async def test_a_lost_connection_leaves_a_gap(tmp_path: Path) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as opened, opened.filling_in():
        await opened.live(NOW - 9000)
        keeper.connected = False
        async with asyncio.timeout(60):
            while not await opened.filling.gaps.of("plant"):  # noqa: ASYNC110 - it is in the store
                await asyncio.sleep(0.01)
        keeper.history[NOW - 8000] = 5
        assert keeper.asked == [], "nothing is read while it is away"
        keeper.connected = True
        await opened.filled()
        assert sorted(await opened.stored()) == [NOW - 9000, NOW - 8000]


async def test_a_gap_is_noted_once_the_store_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, tried = Keeper(), 0
    noted = Gaps.note

    async def note(self: Gaps, adapter: str, begins: Mapping[str, int]) -> None:
        nonlocal tried
        tried += 1
        if tried <= 3:
            raise StoreUnavailable("the disk is full")
        await noted(self, adapter, begins)

    async with gateway(tmp_path, keeper) as opened:
        monkeypatch.setattr(Gaps, "note", note)
        async with opened.filling_in():
            await opened.live(NOW - 9000)
            keeper.connected = False
            await until(lambda: tried > 0, 60, "a try")
            keeper.history[NOW - 8000] = 5
            await opened.live(NOW - 7000)
            keeper.connected = True
            await until(lambda: len(keeper.asked) == 1, 60, "the gap to be read")
            await opened.filled()
        assert keeper.asked == [(NOW - 8999, NOW - 7000)]
        assert sorted(await opened.stored()) == [NOW - 9000, NOW - 8000, NOW - 7000]


async def test_a_connection_that_is_soon_back_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "AWAY_S", 3600.0)
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as opened, opened.filling_in():
        await opened.live(NOW - 9000)
        looked = keeper.looked
        keeper.connected = False
        await until(lambda: keeper.looked > looked + 20, 60, "a look at its connection")
        keeper.connected = True
        looked = keeper.looked
        await until(lambda: keeper.looked > looked + 20, 60, "a look at its connection")
        assert keeper.asked == [] and await opened.filling.gaps.of("plant") == []


async def test_only_so_far_and_so_often(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as first:
        await first.live(NOW - REACH_MS)
    keeper.broken = RuntimeError("a fault of the adapter")
    async with gateway(tmp_path, keeper, reach_ms=4000) as second:
        async with second.filling_in():
            await second.filled()
        assert keeper.asked == [(NOW - 4000, NOW)] * gaps.TRIES
        assert "a fault of the adapter" in caplog.text and "is given up" in caplog.text
    keeper.asked.clear()
    keeper.broken = ValueError("history is false")
    async with gateway(tmp_path, keeper) as third, third.filling_in():
        await third.filled()
        assert len(keeper.asked) == 1, "it says that it reads no history: it is not asked for each device"
    async with gateway(tmp_path, keeper, reach_ms=0) as fourth:
        await asyncio.wait_for(fourth.filling.keep(fourth.adapters), 60)  # type: ignore[arg-type]
        assert await fourth.filling.gaps.of("plant") == []


async def test_a_gap_whose_question_ends_the_connection_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Touchy(Keeper):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            self.asked.append((from_ms, until_ms))
            self.connected = False
            asyncio.get_running_loop().call_later(0.05, setattr, self, "connected", True)
            raise ConnectionError("the server has closed the connection")

    keeper = Touchy()
    async with gateway(tmp_path, keeper) as first:
        await first.live(NOW - 1000)
    async with gateway(tmp_path, keeper) as second, second.filling_in():
        await second.filled()
    assert len(keeper.asked) == gaps.TRIES and "is given up; flexrelay device backfill" in caplog.text


async def test_a_revoked_device_is_not_asked_for(tmp_path: Path) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as first:
        await first.live(NOW - 9000)
    async with gateway(tmp_path, keeper) as second:
        event = {"did": DEVICE.did, "kind": "device", "at": NOW}
        second.path.registry.apply("identity.deactivated", event)
        async with second.filling_in():
            await second.filled()
        assert keeper.asked == []


async def test_what_came_is_told(tmp_path: Path) -> None:
    keeper = Keeper()
    async with gateway(tmp_path, keeper) as opened:
        await opened.live(NOW - 3000, NOW - 2000)
        keeper.history |= {NOW - 5000: 1, NOW - 1000: 2, NOW - 2000: 999}
        path = opened.path
        done = await fill(keeper, path.ingest, path.journal, Stretch(NOW - 5000, NOW))
        assert done == Filled(readings=3, stored=2, duplicates=1, refused={"equivocation": 1})


async def test_more_than_fit_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MOST", 2)
    async with Store(tmp_path / "store.db", [GAPS]) as store:
        noted = Gaps(store, "a")
        await noted.note("plant", {"did:1": 5, "did:2": 5, "did:3": 5})
        assert await noted.of("plant") == [Gap("did:1", 5, None, 0), Gap("did:2", 5, None, 0)]
        assert await Gaps(store, "b").of("plant") == []
