"""Commands and their results over a real broker: order of states, expiry, answers that do not count."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from support.sinks import MemorySink, until

from flexrelay.demo.broker import Mosquitto
from flexrelay_adapters.mqtt import MappingCodec, MqttAdapter
from flexrelay_sdk import Command, CommandState, CommandUpdate

from .conftest import MAPPING, config, device, reading, running

COMMANDS, RESULTS = "flexrelay/v1/dso/meter1/commands", "flexrelay/v1/dso/meter1/results"


class Notes:
    def __init__(self, fail_on: CommandState | None = None) -> None:
        self.updates: list[CommandUpdate] = []
        self._fail_on = fail_on

    async def __call__(self, update: CommandUpdate) -> None:
        if update.state is self._fail_on:
            self._fail_on = None
            raise OSError("disk full, for once")
        self.updates.append(update)

    @property
    def states(self) -> list[str]:
        return [update.state.value for update in self.updates]


def command(lasts_ms: int = 120_000, command_id: str = "c1", credential: str = "meter1") -> Command:
    expires = time.time_ns() // 1_000_000 + lasts_ms
    return Command(command_id, "did:x", credential, "set_power", {"power_w": 100, "from_ms": 1}, expires, "order-1")


def answer(command_id: str = "c1", state: str = "acked", **more: object) -> bytes:
    return json.dumps({"v": 1, "command_id": command_id, "state": state, **more}).encode()


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_command_is_answered(broker: Mosquitto, protocol: str) -> None:
    notes, asked = Notes(), command()
    async with running(config(broker, protocol=protocol), MemorySink()) as adapter, device(broker) as meter:
        await meter.subscribe(COMMANDS, qos=1)
        executing = asyncio.create_task(adapter.execute(asked, notes))
        message = await anext(aiter(meter.messages))
        assert json.loads(message.payload) == {
            "v": 1,
            "command_id": "c1",
            "name": "set_power",
            "parameters": {"power_w": 100, "from_ms": 1},
            "expires_at": asked.expires_at,
        }
        if protocol == "5":
            assert 1 <= message.properties.MessageExpiryInterval <= 120
        await meter.publish(RESULTS, answer(values={"power_w": 90}, detail="ramping"), qos=1)
        await executing
    assert notes.states == ["queued", "sent", "acked"]
    assert (notes.updates[-1].values, notes.updates[-1].detail) == ({"power_w": 90}, "ramping")


@pytest.mark.mosquitto
async def test_answers_that_do_not_count_and_one_that_does(broker: Mosquitto) -> None:
    notes = Notes()
    sink = MemorySink()
    async with (
        running(config(broker), sink) as adapter,
        device(broker) as meter,
        device(broker, "meter2") as other,
    ):
        executing = asyncio.create_task(adapter.execute(command(), notes))
        await until(lambda: "sent" in notes.states)
        await other.publish(RESULTS.replace("meter1", "meter2"), answer(), qos=1)
        await meter.publish(RESULTS, answer("another"), qos=1)
        for malformed in (
            b"",
            b"\xff",
            b"{}",
            answer(state="sent"),
            answer(v=2),
            answer(extra=1),
            answer(values={"p": 1.5}),
        ):
            await meter.publish(RESULTS, malformed, qos=1)
        await until(lambda: adapter.stats.results_malformed == 7 and adapter.stats.results_unknown == 2)
        assert not executing.done()
        await meter.publish(RESULTS, answer(state="failed", detail="fault"), qos=1)
        await executing
        await meter.publish(RESULTS, answer(), qos=1)  # a second answer changes nothing
        await until(lambda: adapter.stats.results_unknown == 3)
        await meter.publish("flexrelay/v1/dso/meter1/readings", reading(1), qos=1)
        await until(lambda: len(sink.frames) == 1)
    assert notes.states == ["queued", "sent", "failed"]


@pytest.mark.mosquitto
async def test_an_unanswered_command_expires_and_the_broker_drops_it(broker: Mosquitto) -> None:
    notes = Notes()
    async with running(config(broker), MemorySink()) as adapter:
        async with device(broker, clean_start=False, properties=_keeps_session()) as meter:
            await meter.subscribe(COMMANDS, qos=1)
        started = time.monotonic()
        await adapter.execute(command(1200), notes)
        assert time.monotonic() - started > 1.0
        await asyncio.sleep(1)
        async with device(broker, clean_start=False, properties=_keeps_session()) as meter:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(aiter(meter.messages)), 0.5)
    assert notes.states == ["queued", "sent", "expired"]


@pytest.mark.mosquitto
async def test_a_command_waits_for_the_broker_and_expires_without_one(broker: Mosquitto) -> None:
    notes, late, passed = Notes(), Notes(), Notes()
    async with running(config(broker), MemorySink()) as adapter:
        await broker.stop()
        await until(lambda: not adapter.connected)
        await adapter.execute(command(-1, "c0"), passed)
        await adapter.execute(command(300, "c2"), late)
        executing = asyncio.create_task(adapter.execute(command(), notes))
        await asyncio.sleep(0.3)
        await broker.restart()
        await until(lambda: adapter.connected)
        async with device(broker) as meter:
            await until(lambda: "sent" in notes.states)
            await meter.publish(RESULTS, answer(), qos=1)
            await executing
    assert passed.states == ["queued", "expired"]
    assert late.states == ["queued", "expired"]
    assert notes.states == ["queued", "sent", "acked"]


@pytest.mark.mosquitto
async def test_an_answer_that_could_not_be_recorded_comes_again(broker: Mosquitto) -> None:
    notes = Notes(fail_on=CommandState.ACKED)
    async with running(config(broker), MemorySink()) as adapter, device(broker) as meter:
        executing = asyncio.create_task(adapter.execute(command(), notes))
        await until(lambda: "sent" in notes.states)
        await meter.publish(RESULTS, answer(), qos=1)
        await executing
    assert notes.states == ["queued", "sent", "acked"]


@pytest.mark.mosquitto
async def test_many_commands_at_once(broker: Mosquitto) -> None:
    async with running(config(broker), MemorySink()) as adapter, device(broker) as meter:
        await meter.subscribe(COMMANDS, qos=1)

        async def obey() -> None:
            async for message in meter.messages:
                await meter.publish(RESULTS, answer(json.loads(message.payload)["command_id"]), qos=1)

        obeying = asyncio.create_task(obey())
        notes = [Notes() for _ in range(100)]
        await asyncio.gather(*(adapter.execute(command(command_id=f"c{i}"), note) for i, note in enumerate(notes)))
        obeying.cancel()
    assert {tuple(note.states) for note in notes} == {("queued", "sent", "acked")}


async def test_what_cannot_be_commanded_is_said_at_once(unused_broker: Mosquitto) -> None:
    settings = config(unused_broker, commands=None, results=None)
    with pytest.raises(ValueError, match="no command topic"):
        await MqttAdapter(settings, MappingCodec(MAPPING)).execute(command(), Notes())
    with pytest.raises(ValueError, match="cannot be a topic level"):
        await MqttAdapter(config(unused_broker), MappingCodec(MAPPING)).execute(command(credential="a/#"), Notes())


def _keeps_session() -> object:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 60
    return properties
