"""Readings on their way: order, acknowledgement, what comes again, what is refused, what waits."""

import asyncio
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import running, stop
from flexrelay_sdk.testkit.sink import RecordingSink, SinkCrash


class ReadingTests(ContractBase):
    """DELIVERY, ACKNOWLEDGEMENT, REDELIVERY, RESUME, CRASH, BACKPRESSURE, MALFORMED, DUPLICATES."""

    @keeps(Promise.DELIVERY)
    def test_readings_arrive_in_order_under_the_devices_name(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter, sink = rig.adapter(), RecordingSink()
            began = time.time_ns() // 1_000_000
            async with running(adapter, sink, connect_s=self.patience_s):
                await self._send(rig, range(20))
                await self._arrival(sink, range(20))
            if self.ordered:
                assert [n for n in sink.values() if n in range(20)] == list(range(20))
            for frame in sink.frames:
                assert (frame.protocol, frame.credential) == (adapter.protocol, rig.credential)
                assert began - 1000 <= frame.received_at <= time.time_ns() // 1_000_000 + 1000
                codec = adapter.codec_for(frame.channel)
                assert codec is not None, f"codec_for({frame.channel!r}) knows no codec for its own channel"
                assert codec.decode(frame).measurements
            assert sink.dead == [] and sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.ACKNOWLEDGEMENT)
    def test_acknowledges_only_after_the_sink_returned(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            sink = RecordingSink()
            sink.hold()
            async with running(rig.adapter(), sink, connect_s=self.patience_s):
                await self._send(rig, range(5))
                await self._until(lambda: sink.waiting > 0, "a frame in the sink")
                await asyncio.sleep(self.settle_s)
                assert rig.acknowledged() == set(), "acknowledged before it was on disk"
                sink.release()
                await self._until(lambda: rig.acknowledged() >= set(range(5)), "the acknowledgements")
            assert set(sink.values()) >= set(range(5))

        self._run(tmp_path, scenario)

    @keeps(Promise.REDELIVERY)
    def test_what_the_sink_refused_comes_again(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            sink = RecordingSink()
            sink.refuse = 2
            async with running(rig.adapter(), sink, connect_s=self.patience_s):
                await self._send(rig, range(10))
                await self._until(lambda: sink.refused > 0, "a refusal")
                assert rig.acknowledged() <= set(sink.values())
                await self._arrival(sink, range(10))
                await self._until(lambda: rig.acknowledged() >= set(range(10)), "the acknowledgements")
            assert sink.refused == 2 and sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.RESUME)
    def test_a_successor_gets_what_was_not_acknowledged(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            first, second = RecordingSink(), RecordingSink()
            first.hold()
            async with running(rig.adapter(), first, connect_s=self.patience_s):
                await self._send(rig, range(5))
                await self._until(lambda: first.waiting > 0, "a frame in the sink")
            assert first.stored == [] and rig.acknowledged() == set()
            async with running(rig.adapter(), second, connect_s=self.patience_s):
                await self._send(rig, range(5, 8))
                await self._arrival(second, range(8))

        self._run(tmp_path, scenario)

    @keeps(Promise.CRASH)
    def test_a_crashing_sink_ends_the_adapter_with_its_error(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            sink, heir = RecordingSink(), RecordingSink()
            sink.crash = 1
            adapter = rig.adapter()
            adapter.validate()
            task = asyncio.create_task(adapter.run(sink))
            try:
                await self._until(lambda: task.done() or adapter.connected, "the connection")
                await self._send(rig, range(3))
                await asyncio.wait({task}, timeout=self.patience_s)
                assert task.done(), "run goes on after an error that it cannot know"
                assert isinstance(_root(task.exception()), SinkCrash), f"ended with {task.exception()!r}"
            finally:
                await _ended(task)
            assert rig.acknowledged() == set() and not adapter.connected
            async with running(rig.adapter(), heir, connect_s=self.patience_s):
                await self._arrival(heir, range(3))

        self._run(tmp_path, scenario)

    @keeps(Promise.BACKPRESSURE)
    def test_a_slow_sink_holds_the_protocol_back_not_memory(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            assert rig.flood_bytes >= 2 * rig.memory_bound_bytes, "a flood within the bound would show nothing"
            sink = RecordingSink()
            sink.hold()
            async with running(rig.bounded_adapter(), sink, connect_s=self.patience_s):
                tracemalloc.start()
                flood = asyncio.create_task(rig.flood(rig.flood_bytes))
                try:
                    await self._until(lambda: sink.waiting > 0, "a frame in the sink")
                    greatest = await self._grown(flood, rig.memory_bound_bytes)
                    tracemalloc.stop()
                    assert greatest <= rig.memory_bound_bytes, f"grew by {greatest:,} bytes"
                    assert sink.stored == []
                    sink.release()
                    async with asyncio.timeout(8 * self.patience_s):
                        count = await flood
                    await self._arrival(sink, range(count), 8 * self.patience_s)
                finally:
                    tracemalloc.stop()
                    flood.cancel()
                    await asyncio.gather(flood, return_exceptions=True)

        self._run(tmp_path, scenario)

    @keeps(Promise.MALFORMED)
    def test_bad_frames_are_dead_lettered_and_the_others_go_on(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            bad = rig.bad_frames()
            assert len(bad) >= 3, "at least an empty, a torn and an oversized frame"
            sink = RecordingSink()
            adapter = rig.adapter()
            async with running(adapter, sink, connect_s=self.patience_s):
                for number, (payload, _) in enumerate(bad):
                    await rig.send(number)
                    await rig.send_raw(payload)
                await rig.send(len(bad))
                await self._arrival(sink, range(len(bad) + 1))
                expected = sorted(reason for _, reason in bad if reason)
                await self._until(lambda: len(sink.dead) >= len(expected), f"{len(expected)} dead letters")
                assert adapter.connected
            assert sorted(reason for _, reason in sink.dead) == expected
            assert set(sink.values()) == set(range(len(bad) + 1)), "a bad frame became a reading"
            assert sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.DUPLICATES)
    def test_duplicates_disturb_nothing(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            sink = RecordingSink()
            async with running(rig.adapter(), sink, connect_s=self.patience_s):
                for number in range(5):
                    await rig.send(number)
                    await rig.repeat(number)
                await rig.send(5)
                await self._arrival(sink, range(6))
                await asyncio.sleep(self.settle_s)
            values = sink.values()
            assert set(values) == set(range(6)) and all(values.count(number) <= 2 for number in range(6))
            assert sink.dead == [] and sink.faults == []

        self._run(tmp_path, scenario)


def _root(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _ended(task: asyncio.Task[None]) -> None:
    if not task.done():
        await stop(task)
    with suppress(BaseException):
        task.exception()
