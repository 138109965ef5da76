"""The contract is worth what it notices: adapters with one fault each, and the test that must fail of it.

The adapter and its hub are those of examples/vendor-adapter; every fault is one method that does it wrong.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flexrelay_sdk import Codec, Command, CommandState, CommandUpdate, Decoded, Frame, Sink, SinkUnavailable
from flexrelay_sdk.testkit import AdapterContract, Promise, Rig

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
    ("AcksByItself", "test_a_sleeping_device_gets_its_command_on_waking"),
]


@pytest.mark.parametrize(("fault", "test"), FAULTS, ids=[f"{fault}-{test}" for fault, test in FAULTS])
def test_a_fault_is_noticed(hub: ModuleType, tmp_path: Path, fault: str, test: str) -> None:
    faulty = wrong(hub, fault)

    class FaultyRig(hub.HubRig):  # type: ignore[misc,name-defined]  # a module loaded by its path
        def adapter(self, **changes: Any) -> Any:
            made = super().adapter(**changes)
            return faulty(made._config, made._codec._codec)

        @classmethod
        @asynccontextmanager
        async def open(cls) -> Any:
            async with hub.HubRig.open.__func__(cls) as rig:
                yield rig

    class Contract(AdapterContract):
        patience_s = 3.0

        def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
            opened: AbstractAsyncContextManager[Rig] = FaultyRig.open()
            return opened

    with pytest.raises((AssertionError, TimeoutError, ExceptionGroup, asyncio.CancelledError)):
        getattr(Contract(), test)(tmp_path)


def test_what_is_left_out_has_a_reason_and_no_test() -> None:
    with pytest.raises(TypeError, match="needs a reason"):

        class _Lazy(AdapterContract):
            without = {Promise.COMMANDS: " "}  # noqa: RUF012  # ClassVar in the base

    class Reasoned(AdapterContract):
        without = {Promise.COMMANDS: "a meter is not commanded"}  # noqa: RUF012  # as above

    assert Reasoned.test_a_refusal_is_told is None
    assert Promise.COMMANDS not in Reasoned.kept() and Promise.SLEEP in Reasoned.kept()
    assert AdapterContract.kept() == frozenset(Promise)
