"""The contract: subclass it, give it a rig, and pytest runs what every adapter must do.

    class TestAcme(AdapterContract):
        def rig(self, tmp_path): return AcmeRig.open(tmp_path)     # an async context manager
        without = {Promise.COMMANDS: "Acme's meters cannot be commanded"}

The tests are plain functions that run their own event loop: nothing but pytest is needed. What a protocol cannot
promise is left out with a reason; the quality scale counts what is promised.
"""

import asyncio
import logging
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from flexrelay_sdk.command import Command, CommandState, CommandUpdate
from flexrelay_sdk.port import CommandTarget
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import run_bounded, running, stop, tasks_of_adapters
from flexrelay_sdk.testkit.sink import RecordingSink, SinkCrash, until

Test = TypeVar("Test", bound=Callable[..., None])
_PROMISE = "flexrelay_promise"


def keeps(promise: Promise) -> Callable[[Test], Test]:
    """Marks a test of a contract with the promise that it tests."""

    def mark(test: Test) -> Test:
        setattr(test, _PROMISE, promise)
        return test

    return mark


class AdapterContract:
    """See the module's text. `patience_s` bounds every wait; `settle_s` is how long nothing must happen for it to count
    as not happening."""

    without: ClassVar[Mapping[Promise, str]] = {}
    """Promises that the protocol cannot make, each with the reason."""
    is_server: ClassVar[bool] = False
    """Whether devices connect to the adapter (else the adapter connects to a server)."""
    ordered: ClassVar[bool] = True
    """Whether the protocol keeps the order of one device's readings."""
    patience_s: ClassVar[float] = 15.0
    settle_s: ClassVar[float] = 0.4

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        raise NotImplementedError(f"{type(self).__name__}.rig(tmp_path) must give the adapter's counterpart")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for promise, reason in cls.without.items():
            if not reason.strip():
                raise TypeError(f"{cls.__name__}.without[{promise}] needs a reason")
        for name in dir(cls):
            if getattr(getattr(cls, name), _PROMISE, None) in cls.without:
                setattr(cls, name, None)  # pytest collects what can be called

    @classmethod
    def kept(cls) -> frozenset[Promise]:
        """The promises that have a test here."""
        tests = [getattr(cls, name) for name in dir(cls) if name.startswith("test_")]
        return frozenset(getattr(test, _PROMISE) for test in tests if hasattr(test, _PROMISE))

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    @keeps(Promise.LIFECYCLE)
    def test_starts_and_stops_and_starts_again(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter = rig.adapter()
            assert not adapter.connected and adapter.name and adapter.protocol
            assert not rig.secret or rig.secret not in adapter.endpoint
            for _ in range(2):
                sink = RecordingSink()
                async with running(adapter, sink, connect_s=self.patience_s):
                    assert adapter.connected
                assert not adapter.connected, "connected after its end"
                assert sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.LIFECYCLE)
    def test_leaves_nothing_running(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            with tasks_of_adapters() as made:
                async with running(rig.adapter(), RecordingSink(), connect_s=self.patience_s):
                    pass
                assert made
            await asyncio.sleep(0.05)
            left = [f"{task.get_name()}: {task.get_coro()}" for task in made if not task.done()]
            assert left == [], f"tasks that the adapter left behind: {left}"

        self._run(tmp_path, scenario)

    @keeps(Promise.LIFECYCLE)
    def test_stops_while_the_sink_is_busy(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            sink = RecordingSink()
            sink.hold()
            async with running(rig.adapter(), sink, connect_s=self.patience_s):
                await self._send(rig, range(5))
                await self._until(lambda: sink.waiting > 0, "a frame in the sink")
            assert sink.stored == []

        self._run(tmp_path, scenario)

    @keeps(Promise.RECONNECT)
    def test_stops_while_there_is_no_server(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with rig.outage():
                adapter = rig.adapter()
                async with running(adapter, RecordingSink(), connected=False) as task:
                    await asyncio.sleep(self.settle_s)
                    assert not adapter.connected
                    assert not task.done(), "gave up instead of trying again"

        self._run(tmp_path, scenario)

    # -- readings ----------------------------------------------------------------------------------------------------

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
                    async with asyncio.timeout(4 * self.patience_s):
                        count = await flood
                    await self._arrival(sink, range(count), 4 * self.patience_s)
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

    # -- the server --------------------------------------------------------------------------------------------------

    @keeps(Promise.RECONNECT)
    def test_a_lost_server_is_found_again_and_nothing_is_lost(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter, sink = rig.adapter(), RecordingSink()
            async with running(adapter, sink, connect_s=self.patience_s) as task:
                await self._send(rig, range(10))
                async with rig.outage():
                    await self._until(lambda: not adapter.connected, "the loss of the server")
                await self._until(lambda: task.done() or adapter.connected, "the connection after the outage")
                assert not task.done()
                await self._send(rig, range(10, 20))
                await self._arrival(sink, range(20))
            assert sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.CREDENTIALS)
    def test_wrong_credentials_are_named_without_the_secret(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig, records: list[logging.LogRecord]) -> None:
            sink = RecordingSink()
            if self.is_server:
                adapter = rig.adapter()
                async with running(adapter, sink, connect_s=self.patience_s):
                    await rig.intrude(adapter)
                    await self._until(lambda: bool(_complaints(records)), "a warning about the credentials")
                    await rig.send(1)
                    await self._arrival(sink, [1])
                assert set(sink.values()) == {1}
            else:
                adapter = rig.adapter_with_wrong_credentials()
                async with running(adapter, sink, connected=False):
                    await self._until(lambda: bool(_complaints(records)), "a warning about the credentials")
                    assert not adapter.connected
                assert sink.entered == 0
                assert any(adapter.name in text for text in _complaints(records)), "the warning names no adapter"
            told = " ".join(record.getMessage() for record in records)
            assert not rig.secret or rig.secret not in told, "the secret stands in the log"

        with _logged() as records:
            self._run(tmp_path, lambda rig: scenario(rig, records))

    # -- commands ----------------------------------------------------------------------------------------------------

    @keeps(Promise.COMMANDS)
    def test_a_command_is_obeyed(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                life = await self._execute(target, _command(rig))
                await self._until(lambda: len(rig.acts()) == 1, "the device's act")
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
            name, parameters = rig.command()
            assert rig.acts()[0][0] == name
            assert rig.acts()[0][1].items() <= parameters.items()

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_refusal_is_told(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.behave("refuse")
                life = await self._execute(target, _command(rig))
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.FAILED]
            assert rig.acts() == []

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_command_without_answer_expires_at_its_time(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.behave("silent")
                began = time.monotonic()
                life = await self._execute(target, _command(rig, lasts_ms=1500))
                assert 1.2 <= time.monotonic() - began <= 1.5 + self.patience_s / 3
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.EXPIRED]

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_an_expired_command_never_reaches_the_device(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                life = await self._execute(target, _command(rig, lasts_ms=-1))
                await asyncio.sleep(self.settle_s)
                assert life.states == [CommandState.QUEUED, CommandState.EXPIRED] and rig.acts() == []
                life = await self._execute(target, _command(rig, "second"))
                assert life.states[-1] is CommandState.ACKED
            assert len(rig.acts()) == 1

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_command_is_handed_over_again_after_a_restart(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            command = _command(rig)
            async with self._commanding(rig) as target:
                await rig.behave("silent")
                executing = asyncio.create_task(target.execute(command, Life()))
                await asyncio.sleep(self.settle_s)
                executing.cancel()
                await asyncio.gather(executing, return_exceptions=True)
            await rig.behave("obey")
            async with self._commanding(rig) as target:
                life = await self._execute(target, command)
                assert life.states[-1] is CommandState.ACKED
                await asyncio.sleep(self.settle_s)
            assert len(rig.acts()) == 1, "the device did it twice"

        self._run(tmp_path, scenario)

    @keeps(Promise.SLEEP)
    def test_a_sleeping_device_gets_its_command_on_waking(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.sleep()
                life = Life()
                executing = asyncio.create_task(target.execute(_command(rig), life))
                await asyncio.sleep(self.settle_s)
                assert not executing.done() and rig.acts() == []
                await rig.wake()
                async with asyncio.timeout(2 * self.patience_s):
                    await executing
                life.check()
                assert life.states[-1] is CommandState.ACKED and len(rig.acts()) == 1

        self._run(tmp_path, scenario)

    @keeps(Promise.SLEEP)
    def test_a_sleeping_device_gets_no_expired_command(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.sleep()
                life = await self._execute(target, _command(rig, lasts_ms=1200))
                assert life.states[-1] is CommandState.EXPIRED
                await asyncio.sleep(1.0)  # protocols count whole seconds
                await rig.wake()
                await asyncio.sleep(2 * self.settle_s)
                assert rig.acts() == [], "it acted on an expired command"

        self._run(tmp_path, scenario)

    # -- what the tests are made of ----------------------------------------------------------------------------------

    def _run(self, tmp_path: Path, scenario: Callable[[Rig], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with self.rig(tmp_path) as rig:
                await scenario(rig)

        run_bounded(whole())

    async def _grown(self, flood: "asyncio.Task[int]", bound: int) -> int:
        """The greatest growth until the flood is through, memory stands still, or the bound is broken."""
        still_s, before, began = 0.0, 0, time.monotonic()
        while still_s < 2 * self.settle_s and time.monotonic() - began < 2 * self.patience_s:
            await asyncio.wait({flood}, timeout=0.1)
            now, greatest = tracemalloc.get_traced_memory()
            if flood.done() or greatest > bound:
                break
            still_s = still_s + 0.1 if abs(now - before) < 65_536 else 0.0
            before = now
        return tracemalloc.get_traced_memory()[1]

    async def _send(self, rig: Rig, numbers: Iterable[int]) -> None:
        for number in numbers:
            await rig.send(number)

    async def _until(self, condition: Callable[[], bool], what: str, timeout_s: float = 0.0) -> None:
        await until(condition, timeout_s or self.patience_s, what)

    async def _arrival(self, sink: RecordingSink, numbers: Iterable[int], timeout_s: float = 0.0) -> None:
        wanted = set(numbers)
        try:
            await self._until(lambda: wanted <= set(sink.values()), "the readings", timeout_s)
        except AssertionError as error:
            missing = sorted(wanted - set(sink.values()))
            raise AssertionError(f"{error}; missing {len(missing)} of {len(wanted)}: {missing[:10]}") from None

    @asynccontextmanager
    async def _commanding(self, rig: Rig) -> Any:
        adapter = rig.adapter()
        assert isinstance(adapter, CommandTarget) and adapter.can_command, "not configured to command"
        async with running(adapter, RecordingSink(), connect_s=self.patience_s):
            yield adapter

    async def _execute(self, target: CommandTarget, command: Command) -> "Life":
        life = Life()
        async with asyncio.timeout(2 * self.patience_s):
            await target.execute(command, life)
        life.check()
        return life


class Life:
    """Notes a command's states; `check` demands what every life keeps to."""

    def __init__(self) -> None:
        self.updates: list[CommandUpdate] = []

    async def __call__(self, update: CommandUpdate) -> None:
        self.updates.append(update)

    @property
    def states(self) -> list[CommandState]:
        """Each state once: a transport may hand over the same command several times."""
        return list(dict.fromkeys(update.state for update in self.updates))

    def check(self) -> None:
        ends = [update.state.value for update in self.updates if update.state.terminal]
        assert len(ends) == 1, f"a command ends once, this one: {ends}"
        assert self.updates[-1].state.terminal, "a state after the end"
        assert CommandState.CONFIRMED not in self.states, "confirmed is the gateway's word, not the adapter's"
        assert self.updates[0].state is CommandState.QUEUED


def _command(rig: Rig, command_id: str = "first", lasts_ms: int = 20_000) -> Command:
    name, parameters = rig.command()
    expires_at = time.time_ns() // 1_000_000 + lasts_ms
    return Command(command_id, "did:example:device", rig.credential, name, parameters, expires_at, "order-1")


def _root(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _ended(task: asyncio.Task[None]) -> None:
    if not task.done():
        await stop(task)
    with suppress(BaseException):
        task.exception()


def _complaints(records: Iterable[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


class _logged:  # noqa: N801  # reads as a verb
    """Every record of the block, whatever the levels are."""

    def __enter__(self) -> list[logging.LogRecord]:
        self._records: list[logging.LogRecord] = []
        self._handler = logging.Handler(logging.DEBUG)
        self._handler.emit = self._records.append  # type: ignore[method-assign, assignment]  # it only keeps
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self._handler)
        return self._records

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level)
