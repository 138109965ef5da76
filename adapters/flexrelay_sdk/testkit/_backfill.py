"""The optional ability `Backfiller`: what the other side has kept is read when it is asked for."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flexrelay_sdk.frame import SinkUnavailable
from flexrelay_sdk.port import Backfiller
from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import running
from flexrelay_sdk.testkit.sink import RecordingSink

_KEPT = range(1000, 1010)
"""Readings in the history, a second apart."""
_STEP_MS = 1000


class BackfillContract(ContractBase):
    """BACKFILL; beside `AdapterContract`, for adapters that read a history."""

    @keeps(Promise.BACKFILL)
    def test_what_was_kept_is_filled_in_and_nothing_else(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            begin = await _kept(rig)
            async with self._filling(rig) as adapter:
                sink = RecordingSink()
                count = await self._fill(adapter, sink, begin, begin + len(_KEPT) * _STEP_MS)
                assert _told(sink) == [(number, begin + n * _STEP_MS) for n, number in enumerate(_KEPT)], (
                    "not what was kept, at its instants, oldest first"
                )
                assert count == len(sink.frames), f"says {count} frames, put were {len(sink.frames)}"
                for frame in sink.frames:
                    assert (frame.protocol, frame.credential) == (adapter.protocol, rig.credential)
                    codec = adapter.codec_for(frame.channel)
                    assert codec is not None, f"codec_for({frame.channel!r}) knows no codec for its own channel"
                    assert codec.decode(frame).measurements
                again = RecordingSink()
                await self._fill(adapter, again, begin, begin + len(_KEPT) * _STEP_MS)
                assert _told(again) == _told(sink), "asked again, it tells something else"
                assert sink.dead == [] and sink.faults == []
                await self._nothing_else(rig, adapter, begin)

        self._run(tmp_path, scenario)

    async def _nothing_else(self, rig: Rig, adapter: Backfiller, begin: int) -> None:
        """[from, until): the first instant is in, the last one is not; and only of whom it was asked."""
        for first, end in ((2, 5), (0, 1), (9, 20)):
            sink = RecordingSink()
            await self._fill(adapter, sink, begin + first * _STEP_MS, begin + end * _STEP_MS)
            assert [number for number, _ in _told(sink)] == list(_KEPT[first:end])
        sink = RecordingSink()
        assert await self._fill(adapter, sink, begin + 1, begin + _STEP_MS) == 0
        assert await self._fill(adapter, sink, begin + 5 * _STEP_MS, begin + 5 * _STEP_MS) == 0
        assert await self._fill(adapter, sink, begin, begin + 5 * _STEP_MS, ("somebody else",)) == 0
        assert sink.stored == [] and sink.dead == []
        await self._fill(adapter, sink, begin, begin + _STEP_MS, ("somebody else", rig.credential))
        assert [number for number, _ in _told(sink)] == [_KEPT[0]]

    @keeps(Promise.BACKFILL)
    def test_a_back_fill_waits_for_the_sink_and_holds_nothing_else_up(self, tmp_path: Path) -> None:
        """And what the sink refuses is told, so that it can be asked for again."""

        async def scenario(rig: Rig) -> None:
            begin = await _kept(rig)
            live, slow = RecordingSink(), RecordingSink()
            slow.refuse = 1
            async with self._filling(rig, live) as adapter:
                with pytest.raises(SinkUnavailable):
                    await self._fill(adapter, slow, begin, begin + len(_KEPT) * _STEP_MS)
                slow.hold()
                filling = asyncio.create_task(
                    self._fill(adapter, slow, begin, begin + len(_KEPT) * _STEP_MS), name="fills in"
                )
                try:
                    await self._until(lambda: slow.waiting > 0 or filling.done(), "a frame of the history")
                    await self._send(rig, range(10))
                    await self._arrival(live, range(10))
                    assert not filling.done(), "it did not wait for the sink"
                    slow.release()
                    async with asyncio.timeout(4 * self.patience_s):
                        await filling
                finally:
                    filling.cancel()
                    await asyncio.gather(filling, return_exceptions=True)
            assert {number for number, _ in _told(slow)} == set(_KEPT)
            assert live.faults == [] and slow.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.BACKFILL)
    def test_a_back_fill_without_the_source_is_a_connection_error(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            begin = await _kept(rig)
            async with rig.outage():
                adapter, sink = rig.adapter(), RecordingSink()
                assert isinstance(adapter, Backfiller)
                with pytest.raises(ConnectionError):
                    await self._fill(adapter, sink, begin, begin + len(_KEPT) * _STEP_MS)
                assert sink.entered == 0

        self._run(tmp_path, scenario)

    @asynccontextmanager
    async def _filling(self, rig: Rig, live: RecordingSink | None = None) -> AsyncIterator[Any]:
        adapter = rig.adapter()
        assert isinstance(adapter, Backfiller), f"{type(adapter).__name__} reads no history"
        sink = RecordingSink() if live is None else live
        async with running(adapter, sink, connect_s=self.patience_s):
            yield adapter

    async def _fill(
        self, adapter: Backfiller, sink: RecordingSink, from_ms: int, until_ms: int, who: Iterable[str] = ()
    ) -> int:
        async with asyncio.timeout(4 * self.patience_s):
            return await adapter.backfill(sink, from_ms, until_ms, tuple(who))


async def _kept(rig: Rig) -> int:
    """The instant (UTC ms) of the first reading in the history."""
    begin = (time.time_ns() // 1_000_000_000 - 3600) * 1000
    await rig.keep({number: begin + n * _STEP_MS for n, number in enumerate(_KEPT)})
    return begin


def _told(sink: RecordingSink) -> list[tuple[int, int]]:
    """(Number, instant) of every measurement, in the order of arrival."""
    return [(m.registers["power_w"], m.observed_at) for m in sink.measurements if "power_w" in m.registers]
