"""The contract is worth what it notices: adapters with one fault each, and the test that must fail of it.

The adapter and its hub are those of examples/vendor-adapter; every fault is one method that does it wrong.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flexrelay_sdk import (
    ClockState,
    Codec,
    Command,
    CommandState,
    CommandUpdate,
    Decoded,
    DeviceFacts,
    Frame,
    Sink,
    SinkUnavailable,
)
from flexrelay_sdk.testkit import (
    AdapterContract,
    BackfillContract,
    DiscoveryContract,
    FactContract,
    Promise,
    RecordingSink,
    Rig,
    TimeContract,
)

EXAMPLE = Path(__file__).parents[3] / "examples" / "vendor-adapter"


@pytest.fixture(scope="module")
def hub() -> Iterator[ModuleType]:
    """The example's rig; its package importable for as long as the module's tests run."""
    sys.path.insert(0, str(EXAMPLE / "src"))
    try:
        spec = importlib.util.spec_from_file_location("acme_hub_rig", EXAMPLE / "tests" / "hub.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(EXAMPLE / "src"))
        for name in [name for name in sys.modules if name.startswith("flexrelay_acme_hub")]:
            del sys.modules[name]


def wrong(hub: ModuleType, fault: str) -> type[Any]:
    """The example's adapter with one method that does it wrong."""
    right: type[Any] = hub.AcmeHubAdapter

    class AcknowledgesFirst(right):
        async def _take(self, link: Any, lines: Sequence[bytes], sink: Sink) -> None:
            for line in lines:
                if line.startswith(b"READING"):
                    link.say(f"ACK {line.split(b' ')[1].decode()}")
            await super()._take(link, lines, sink)

    class AcknowledgesRefused(right):
        async def _take(self, link: Any, lines: Sequence[bytes], sink: Sink) -> None:
            try:
                await super()._take(link, lines, sink)
            except SinkUnavailable:
                for line in lines:
                    link.say(f"ACK {line.split(b' ')[1].decode()}")
                raise

    class SwallowsCrashes(right):
        async def run(self, sink: Sink) -> None:
            while True:
                with suppress(Exception):
                    await super().run(sink)
                await asyncio.sleep(0.01)

    class GivesUp(right):
        async def run(self, sink: Sink) -> None:
            from flexrelay_acme_hub.link import LinkLost

            with suppress(LinkLost):
                await self._serve(sink)

    class Unstoppable(right):
        async def run(self, sink: Sink) -> None:
            while True:
                with suppress(asyncio.CancelledError):
                    await super().run(sink)

    class LeavesATask(right):
        async def run(self, sink: Sink) -> None:
            self.left = asyncio.create_task(asyncio.sleep(60), name="forgotten")
            await super().run(sink)

    class ReadsAhead(right):
        """Takes everything off the socket at once; the sink gets it from a list."""

        async def _serve(self, sink: Sink) -> None:
            from flexrelay_acme_hub.link import Link

            link = await Link.open(self._config, self._token())
            waiting: list[bytes] = []
            come = asyncio.Event()

            async def read() -> None:
                while True:
                    waiting.extend(await link.lines(1000))
                    come.set()

            reading = asyncio.create_task(read())
            self._link = link
            self._online.set()
            try:
                while True:
                    await come.wait()
                    come.clear()
                    lines, waiting[:] = list(waiting), []
                    await self._take(link, lines, sink)
            finally:
                reading.cancel()
                self._online.clear()
                await link.close()

    class DiesOfBadFrames(right):
        async def _take(self, link: Any, lines: Sequence[bytes], sink: Sink) -> None:
            from flexrelay_acme_hub.link import LinkLost

            if any(line.startswith(b"READING") and line.count(b" ", 0, 60) < 3 for line in lines):
                raise LinkLost("a line without a payload")
            if any(len(line) > 65_536 for line in lines):
                raise LinkLost("a line that is too long")
            await super()._take(link, lines, sink)

    class RaisesInItsCodec(right):
        def __init__(self, config: Any, codec: Codec) -> None:
            super().__init__(config, codec)

            class Raw:
                def decode(self, frame: Frame) -> Decoded:
                    int(frame.payload.decode()[5:-1] or "x")
                    return codec.decode(frame)

            self._codec = Raw()

    class WrongDevice(right):
        async def _take(self, link: Any, lines: Sequence[bytes], sink: Sink) -> None:
            await super()._take(link, [line.replace(b"meter-1", b"meter-2") for line in lines], sink)

    class TellsItsSecret(right):
        async def run(self, sink: Sink) -> None:
            logging.getLogger(__name__).info("connecting with %s", self._token())
            await super().run(sink)

    class SaysNothing(right):
        async def run(self, sink: Sink) -> None:
            logging.disable(logging.WARNING)
            try:
                await super().run(sink)
            finally:
                logging.disable(logging.NOTSET)

    class SendsExpired(right):
        async def _send(self, command: Command) -> bool:
            await self._online.wait()
            self._link.say(f'DO {command.command_id} 9999 {command.credential} {command.name} {{"power_w": 1}}')
            return True

        async def execute(self, command: Command, on_update: Any) -> None:
            await self._send(command)
            await super().execute(command, on_update)

    class NeverExpires(right):
        async def execute(self, command: Command, on_update: Any) -> None:
            async def later(update: CommandUpdate) -> None:
                if update.state is CommandState.EXPIRED:
                    await asyncio.sleep(60)
                await on_update(update)

            await super().execute(command, later)

    class EndsTwice(right):
        async def execute(self, command: Command, on_update: Any) -> None:
            await super().execute(command, on_update)
            await on_update(CommandUpdate(command.command_id, CommandState.EXPIRED, 1))

    class AcksByItself(right):
        async def execute(self, command: Command, on_update: Any) -> None:
            for state in (CommandState.QUEUED, CommandState.SENT, CommandState.ACKED):
                await on_update(CommandUpdate(command.command_id, state, 1))

    class RenamesCommands(right):
        """Gives a command another name each time it is handed over; the answer is found all the same."""

        async def _send(self, command: Command) -> bool:
            again = replace(command, command_id=f"{command.command_id}-{time.time_ns()}")
            self._answers[again.command_id] = self._answers[command.command_id]
            return bool(await super()._send(again))

    class FindsNobody(right):
        async def discover(self) -> AsyncIterator[str]:
            for each in (self._config.name, "meter-1"):
                yield each

    class FindsEverybodyTwice(right):
        async def discover(self) -> AsyncIterator[str]:
            for _ in range(2):
                async for each in super().discover():
                    yield each

    class FindsEachOnce(right):
        """Until somebody has been told of it, and never again."""

        async def discover(self) -> AsyncIterator[str]:
            told = self.__dict__.setdefault("told", set())
            async for each in super().discover():
                if each not in told:
                    told.add(each)
                    yield each

    class FindsForEver(right):
        async def discover(self) -> AsyncIterator[str]:
            with suppress(ConnectionError):
                async for each in super().discover():
                    yield each
            await asyncio.sleep(3600)

    class FindsByReconnecting(right):
        async def discover(self) -> AsyncIterator[str]:
            if self._link is not None:
                await self._link.close()
                self._online.clear()
            async for each in super().discover():
                yield each

    class ReportsWhatItFinds(right):
        """Makes a reading of every device that it finds."""

        async def run(self, sink: Sink) -> None:
            self._sink = sink
            await super().run(sink)

        async def discover(self) -> AsyncIterator[str]:
            async for each in super().discover():
                frame = Frame(self.protocol, each, b"{}", 1, f"{self.endpoint}/{each}")
                await self._sink.put([frame], self._codec)
                yield each

    class FindsInTheBackground(right):
        async def discover(self) -> AsyncIterator[str]:
            self.left = asyncio.create_task(asyncio.sleep(60), name="forgotten")
            async for each in super().discover():
                yield each

    class FindsWithAnError(right):
        async def discover(self) -> AsyncIterator[str]:
            if not self.connected:
                raise KeyError("no connection")
            async for each in super().discover():
                yield each

    class FillsInNothing(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            return 10

    class FillsInBackwards(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            kept = RecordingSink()
            count = await super().backfill(kept, from_ms, until_ms, credentials)
            await sink.put(kept.frames[::-1], self._codec)
            return int(count)

    class FillsInAtTheWrongTime(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            kept = RecordingSink()
            count = await super().backfill(kept, from_ms, until_ms, credentials)
            frames = [frame._replace(payload=frame.payload.split(b",")[0] + b"}") for frame in kept.frames]
            await sink.put(frames, self._codec)
            return int(count)

    class FillsInTheLastToo(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            return int(await super().backfill(sink, from_ms, until_ms + 1, credentials))

    class FillsInForEverybody(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            return int(await super().backfill(sink, from_ms, until_ms))

    class FillsInOnce(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            begin = max(from_ms, self.__dict__.get("filled", 0))
            self.filled = until_ms
            return int(await super().backfill(sink, begin, until_ms, credentials))

    class FillsInWithoutAWord(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            with suppress(SinkUnavailable):
                return int(await super().backfill(sink, from_ms, until_ms, credentials))
            return 0

    class FillsInWithoutASource(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            with suppress(ConnectionError):
                return int(await super().backfill(sink, from_ms, until_ms, credentials))
            return 0

    class FillsInInsteadOfReading(right):
        """Nothing that comes now is taken while a back-fill lasts."""

        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            self._taking = asyncio.Event()
            try:
                return int(await super().backfill(sink, from_ms, until_ms, credentials))
            finally:
                self._taking.set()

        async def _take(self, link: Any, lines: Sequence[bytes], sink: Sink) -> None:
            if (taking := self.__dict__.get("_taking")) is not None:
                await taking.wait()
            await super()._take(link, lines, sink)

    class ForgetsTheCount(right):
        async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
            await super().backfill(sink, from_ms, until_ms, credentials)
            return 0

    class SetsNoClock(right):
        async def sync_time(self, credential: str) -> ClockState:
            return ClockState(None, True)

    class TellsTheWrongOffset(right):
        async def sync_time(self, credential: str) -> ClockState:
            state = await super().sync_time(credential)
            return ClockState(-state.offset_ms, state.set)

    class SetsWhateverTheDeviceSays(right):
        async def sync_time(self, credential: str) -> ClockState:
            return ClockState((await super().sync_time(credential)).offset_ms, True)

    class SetsSleepingClocks(right):
        async def sync_time(self, credential: str) -> ClockState:
            with suppress(ConnectionError):
                return ClockState(*await super().sync_time(credential))
            return ClockState(None, False)

    class SetsStrangersClocks(right):
        async def sync_time(self, credential: str) -> ClockState:
            with suppress(ValueError):
                return ClockState(*await super().sync_time(credential))
            return ClockState(None, False)

    class TellsNoFacts(right):
        def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
            return ()

    class TellsFactsWhileItRuns(right):
        def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
            return list(super().facts()) if self.connected else ()

    class TellsFactsTwice(right):
        def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
            return 2 * list(super().facts())

    class TellsFactsOnce(right):
        def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
            told, self._facts = self._facts, {}
            return list(told.items())

    class InventsFacts(right):
        def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
            return [("meter-1", DeviceFacts("Acme"))]

    class TellsFactsAsTheyCome(right):
        def _learn(self, rest: str) -> None:
            device, _, text = rest.partition(" ")
            self._facts[device] = DeviceFacts(*list(json.loads(text).values())[:4])

    class MakesReadingsOfFacts(right):
        async def _take(self, link: Any, lines: Sequence[bytes], sink: Sink) -> None:
            for line in lines:
                if line.startswith(b"ABOUT"):
                    await sink.put([Frame(self.protocol, "meter-1", line, 1, f"{self.endpoint}/meter-1")], self._codec)
            await super()._take(link, lines, sink)

    class AsksWhenItIsAsked(right):
        def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
            time.sleep(2.5)
            return list(super().facts())

    found: type[Any] = locals()[fault]
    return found


FAULTS = [
    ("AcknowledgesFirst", "test_acknowledges_only_after_the_sink_returned"),
    ("AcknowledgesFirst", "test_a_successor_gets_what_was_not_acknowledged"),
    ("AcknowledgesRefused", "test_what_the_sink_refused_comes_again"),
    ("SwallowsCrashes", "test_a_crashing_sink_ends_the_adapter_with_its_error"),
    ("GivesUp", "test_a_lost_server_is_found_again_and_nothing_is_lost"),
    ("GivesUp", "test_stops_while_there_is_no_server"),
    ("Unstoppable", "test_starts_and_stops_and_starts_again"),
    ("LeavesATask", "test_leaves_nothing_running"),
    ("ReadsAhead", "test_a_slow_sink_holds_the_protocol_back_not_memory"),
    ("DiesOfBadFrames", "test_bad_frames_are_dead_lettered_and_the_others_go_on"),
    ("RaisesInItsCodec", "test_bad_frames_are_dead_lettered_and_the_others_go_on"),
    ("WrongDevice", "test_readings_arrive_in_order_under_the_devices_name"),
    ("TellsItsSecret", "test_wrong_credentials_are_named_without_the_secret"),
    ("SaysNothing", "test_wrong_credentials_are_named_without_the_secret"),
    ("SendsExpired", "test_an_expired_command_never_reaches_the_device"),
    ("SendsExpired", "test_a_sleeping_device_gets_no_expired_command"),
    ("NeverExpires", "test_a_command_without_answer_expires_at_its_time"),
    ("EndsTwice", "test_a_command_is_obeyed"),
    ("AcksByItself", "test_a_refusal_is_told"),
    ("AcksByItself", "test_a_restart_while_the_device_sleeps_loses_and_repeats_nothing"),
    ("RenamesCommands", "test_a_command_that_went_out_before_a_restart_is_done_once"),
    ("AcksByItself", "test_a_sleeping_device_gets_its_command_on_waking"),
    ("FindsNobody", "test_a_device_that_nobody_knows_is_discovered"),
    ("FindsEverybodyTwice", "test_a_device_that_nobody_knows_is_discovered"),
    ("FindsEachOnce", "test_discovery_disturbs_no_readings"),
    ("FindsByReconnecting", "test_discovery_disturbs_no_readings"),
    ("ReportsWhatItFinds", "test_discovery_disturbs_no_readings"),
    ("FindsInTheBackground", "test_discovery_that_is_broken_off_leaves_nothing_behind"),
    ("FindsForEver", "test_discovery_ends_where_nothing_answers"),
    ("FindsWithAnError", "test_discovery_ends_where_nothing_answers"),
    ("FillsInNothing", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("FillsInBackwards", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("FillsInAtTheWrongTime", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("FillsInOnce", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("ForgetsTheCount", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("FillsInTheLastToo", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("FillsInForEverybody", "test_what_was_kept_is_filled_in_and_nothing_else"),
    ("FillsInWithoutAWord", "test_a_back_fill_waits_for_the_sink_and_holds_nothing_else_up"),
    ("FillsInInsteadOfReading", "test_a_back_fill_waits_for_the_sink_and_holds_nothing_else_up"),
    ("FillsInWithoutASource", "test_a_back_fill_without_the_source_is_a_connection_error"),
    ("SetsNoClock", "test_a_wrong_clock_is_told_and_set"),
    ("TellsTheWrongOffset", "test_a_wrong_clock_is_told_and_set"),
    ("SetsWhateverTheDeviceSays", "test_a_clock_that_cannot_be_set_is_told"),
    ("SetsSleepingClocks", "test_a_clock_out_of_reach_is_an_error"),
    ("SetsStrangersClocks", "test_a_clock_out_of_reach_is_an_error"),
    ("TellsNoFacts", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
    ("TellsFactsWhileItRuns", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
    ("TellsFactsTwice", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
    ("TellsFactsOnce", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
    ("InventsFacts", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
    ("AsksWhenItIsAsked", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
    ("TellsFactsAsTheyCome", "test_what_is_not_fit_to_be_shown_is_made_so"),
    ("MakesReadingsOfFacts", "test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading"),
]


NEVER_ENDING = ("Unstoppable", "LeavesATask", "FindsInTheBackground")
"""What would be waited for in vain."""
NOTICED = (AssertionError, TimeoutError, ExceptionGroup, asyncio.CancelledError, pytest.fail.Exception)


class Whole(AdapterContract, DiscoveryContract, BackfillContract, TimeContract, FactContract):
    """The contract of an adapter with every ability."""


@pytest.mark.parametrize(("fault", "test"), FAULTS, ids=[f"{fault}-{test}" for fault, test in FAULTS])
def test_a_fault_is_noticed(
    hub: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, test: str
) -> None:
    faulty = wrong(hub, fault)
    if fault in NEVER_ENDING:
        monkeypatch.setattr(importlib.import_module("flexrelay_sdk.testkit.running"), "STOP_S", 1.0)

    class FaultyRig(hub.HubRig):  # type: ignore[misc,name-defined]  # a module loaded by its path
        def adapter(self, **changes: Any) -> Any:
            made = super().adapter(**changes)
            return faulty(made._config, made._codec._codec)

        @classmethod
        @asynccontextmanager
        async def open(cls) -> Any:
            async with hub.HubRig.open.__func__(cls) as rig:
                yield rig

    class Contract(Whole):
        patience_s = 1.0 if fault.startswith(("Finds", "TellsFacts", "TellsNoFacts")) else 3.0

        def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
            opened: AbstractAsyncContextManager[Rig] = FaultyRig.open()
            return opened

    with pytest.raises(NOTICED):
        getattr(Contract(), test)(tmp_path)


def test_every_test_of_the_optional_abilities_has_a_fault_that_it_notices() -> None:
    tests = {
        name
        for contract in (DiscoveryContract, BackfillContract, TimeContract, FactContract)
        for name in vars(contract)
        if name.startswith("test_")
    }
    assert tests <= {test for _, test in FAULTS}


def test_what_is_left_out_has_a_reason_and_no_test() -> None:
    with pytest.raises(TypeError, match="needs a reason"):

        class _Lazy(AdapterContract):
            without = {Promise.COMMANDS: " "}  # noqa: RUF012  # ClassVar in the base

    class Reasoned(AdapterContract):
        without = {Promise.COMMANDS: "a meter is not commanded"}  # noqa: RUF012  # as above

    assert Reasoned.test_a_refusal_is_told is None
    assert Promise.COMMANDS not in Reasoned.kept() and Promise.SLEEP in Reasoned.kept()
    assert Whole.kept() == frozenset(Promise)
    optional = {Promise.DISCOVERY, Promise.BACKFILL, Promise.TIME_SYNC, Promise.FACTS}
    assert AdapterContract.kept() == frozenset(Promise) - optional
