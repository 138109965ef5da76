"""`flexrelay simulate` as publishers of OPC UA PubSub: what their key frames and delta frames tell comes into the
journal exactly, keep-alives tell of no gap, and the adapter knows which publisher is there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.mosquitto import mosquitto
from support.simulated import (
    NAMES,
    PATIENCE_S,
    T0,
    Readings,
    devices,
    expected,
    gateway,
    living,
    plan,
    until_stored,
)

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay_adapters.mqtt._client import MqttiumConnection
from flexrelay_adapters.opcua_pubsub import PubSubAdapter, make_adapter
from flexrelay_adapters.opcua_pubsub.metadata import metadata_of
from flexrelay_adapters.opcua_pubsub.publisher import Manner, Message, Publisher
from flexrelay_adapters.opcua_pubsub.simulator import PubSubSimulator, adapter_section, make_simulator
from flexrelay_adapters.opcua_pubsub.topics import Topics
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(300)]
ACCOUNTS = (
    Account("plant", "secret-of-plant", write=("opcua/json/#",)),
    Account("gw", "secret-of-gw", read=("opcua/json/#",)),
)
CREDENTIALS = [f"{name}/1" for name in NAMES]
MAPPED = ("import_j", "export_j", "power_w", "soc_permille")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """It has the gateway's session already, so that nothing is told before somebody listens."""
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as started:
        config = adapter(started).config
        session = await MqttiumConnection.open(config)
        await session.subscribe(Topics(config).filters)
        await session.close()
        yield started


def adapter(broker: Mosquitto) -> PubSubAdapter:
    section = {
        "port": broker.port, "client_id": "gw", "username": "gw", "password": "secret-of-gw", "backoff_min_s": 0.05,
        **adapter_section(),
    }  # fmt: skip
    return make_adapter("plant", section, Path(), NoNativeCodec())


def simulator(broker: Mosquitto, **changes: Any) -> PubSubSimulator:
    section = {
        "port": broker.port, "username": "plant", "password": "secret-of-plant", "backoff_s": 0.1, "key_frames": 4,
        **changes,
    }  # fmt: skip
    return make_simulator(section, Path(), devices(), plan(), "a")


def said_by(target: PubSubAdapter) -> list[str]:
    return list(target.states.values())


def as_told(simulated: Readings, key_frames: int = 4) -> Readings:
    """All mapped registers in key frames, else those that have changed; nothing where none has."""
    found: Readings = {}
    before: dict[str, int] = {}
    for number, (at, registers) in enumerate(sorted(simulated.items())):
        whole = number % key_frames == 0
        told = {name: registers[name] for name in MAPPED if name in registers}
        found[at] = {name: value for name, value in told.items() if whole or before[name] != value}
        before = told
    return {at: told for at, told in found.items() if told}


@pytest.mark.parametrize("fields", ["raw", "variant", "data_value"])
async def test_readings(broker: Mosquitto, tmp_path: Path, fields: str) -> None:
    publishers, target = simulator(broker, fields=fields), adapter(broker)
    async with gateway(tmp_path / "gw", "opcua_pubsub", CREDENTIALS) as found:
        async with living(publishers, target, found):
            for name in CREDENTIALS:  # an idle battery has key frames only, and keep-alives between them
                await found.until(name, lambda got: len(got) >= 3, f"readings of {name}")
            await until(lambda: said_by(target) == ["Operational"] * 5, PATIENCE_S, "what they say of themselves")
        got = {name: await found.registers(f"{name}/1") for name in NAMES}
        simulated = expected(5, (max(map(max, got.values())) - T0) // 10_000)
        for name, told in got.items():
            wanted = as_told(simulated[name])
            assert told == {at: wanted[at] for at in sorted(wanted)[: len(told)]}, name
            assert any(len(registers) < 3 for registers in told.values()) or name == "battery-3", "no delta frame"
        assert await found.journal.letters() == []
    assert target.stats.keep_alives > 0 and target.stats.missing == target.stats.malformed == 0
    assert target.stats.metadata >= 5 and target.stats.other_versions == target.stats.unused == 0


async def test_publishers_outlive_the_broker_and_say_farewell(broker: Mosquitto, tmp_path: Path) -> None:
    publishers, target = simulator(broker), adapter(broker)
    async with gateway(tmp_path / "gw", "opcua_pubsub", CREDENTIALS) as found:
        async with living(publishers, target, found):
            await until_stored(found, 10)
            await broker.restart()
            for name in CREDENTIALS:  # all are back
                before = len(await found.readings(name))
                await found.until(name, lambda got, least=before + 2: len(got) >= least, f"readings of {name}")
        simulated = expected(5, 10_000)
        for name in NAMES:
            told, wanted = await found.registers(f"{name}/1"), as_told(simulated[name])
            assert told == {at: wanted[at] for at in sorted(wanted)[: len(told)]}, f"{name}: something is missing"
        assert publishers.stats.reconnects >= 1 and await found.journal.letters() == []
    later = adapter(broker)  # what is retained tells it
    async with running(later, RecordingSink()):
        await until(lambda: said_by(later) == ["Disabled"] * 5, PATIENCE_S, "the farewells")
        await until(lambda: later.stats.metadata >= 5, PATIENCE_S, "the metadata")


async def test_a_wrong_password_is_said_and_ends_it(broker: Mosquitto) -> None:
    with pytest.raises(ConnectionError, match=r"turns .* away.*check username and password"):
        await simulator(broker, password="wrong").run()


def told_by(seed: str, count: int = 12, **manner: Any) -> list[Message]:
    found = []
    for device in devices(9, seed):
        publisher = Publisher(device, seed, Manner(**manner))
        found.append(publisher.metadata(T0))
        found += [publisher.measured(at) for at in range(T0 + 10_000, T0 + 10_000 * (count + 1), 10_000)]
    return found


def test_the_same_seed_gives_the_same_messages() -> None:
    assert told_by("a") == told_by("a") != told_by("b")
    ids = [json.loads(message.payload)["MessageId"] for message in told_by("a")]
    assert len(set(ids)) == len(ids)


def test_sequence_numbers_and_what_they_name() -> None:
    """A keep-alive names the number that comes next, and takes none (OPC 10000-14 §7.2.5.4.1)."""
    battery = Publisher(devices(3)[2], "a", Manner(key_frames=3))
    messages = [json.loads(battery.measured(T0 + 1000 * n).payload)["Messages"][0] for n in range(1, 8)]
    kinds = [message["MessageType"].removeprefix("ua-") for message in messages]
    assert kinds == ["keyframe", "keepalive", "keepalive"] * 2 + ["keyframe"], "it idles"
    assert [message["SequenceNumber"] for message in messages] == [1, 2, 2, 2, 3, 3, 3]
    assert all(("Payload" in message) == (kind == "keyframe") for message, kind in zip(messages, kinds, strict=True))


def test_the_metadata_name_types_and_units() -> None:
    for device in devices():
        names = sorted(device.model.registers())
        found = metadata_of(json.loads(Publisher(device, "a", Manner()).metadata(T0).payload), names)
        facts = json.loads(found.facts)
        units = {"j": "J", "w": "W", "mv": "mV", "ma": "mA", "permille": "permille"}
        assert facts["units"] == {name: units[name.rsplit("_", 1)[1]] for name in names} and not found.missing
        assert facts["types"] == {name: 8 if name.endswith("_j") else 6 for name in names}
