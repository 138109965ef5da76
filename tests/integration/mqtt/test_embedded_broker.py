"""The broker of machines without Mosquitto: same accounts, same topics, MQTT 3.1.1."""

from __future__ import annotations

import time
from pathlib import Path

import aiomqtt
import pytest
from support.sinks import MemorySink, until

from flexrelay.demo.broker import device_account, gateway_account, start_broker
from flexrelay.demo.devices import Device, Fleet
from flexrelay.demo.plants import BatteryPlant
from flexrelay_sdk import Command, CommandUpdate

from .conftest import ACCOUNTS, config, device, reading, running
from .test_devices import START, identity


async def test_readings_accounts_and_topics(tmp_path: Path) -> None:
    v311 = aiomqtt.ProtocolVersion.V311
    async with start_broker(tmp_path, ACCOUNTS, embedded=True) as broker:
        assert broker.kind.startswith("amqtt") and not broker.mqtt5
        sink = MemorySink()
        async with running(config(broker, protocol="3.1.1"), sink), device(broker, protocol=v311) as meter:
            await meter.publish("flexrelay/v1/dso/meter2/readings", reading(666), qos=1)
            for power in range(50):
                await meter.publish("flexrelay/v1/dso/meter1/readings", reading(power), qos=1)
            await until(lambda: len(sink.frames) >= 50, what="50 readings")
        assert sink.payloads() == [reading(power) for power in range(50)]
        for changes in ({"password": "wrong"}, {"username": "nobody"}, {"username": None, "password": None}):
            with pytest.raises(aiomqtt.MqttError):
                async with device(broker, protocol=v311, timeout=3, **changes):
                    pass


async def test_the_fleet_and_its_commands(tmp_path: Path) -> None:
    battery = BatteryPlant(rated_w=5000, capacity_wh=10_000, start_ms=START)
    device = Device(identity("battery")[0], battery, ["dso"], start_ms=START)
    accounts = [
        device_account(device.scid, device.identity.password),
        gateway_account("dso", "gateway-dso", "secret-g"),
    ]
    sink = MemorySink()
    states = []

    async def note(update: CommandUpdate) -> None:
        states.append(update.state.value)

    async with (
        start_broker(tmp_path, accounts, embedded=True) as broker,
        running(config(broker, protocol="3.1.1"), sink) as adapter,
        Fleet([device], host=broker.host, port=broker.port, mqtt5=broker.mqtt5, now=lambda: START) as fleet,
    ):
        parameters = {"power_w": 3000, "from_ms": START, "until_ms": START + 900_000}
        expires = time.time_ns() // 1_000_000 + 120_000
        await adapter.execute(
            Command("c1", device.identity.did, device.scid, "set_power", parameters, expires, "order-1"), note
        )
        assert await fleet.advance(START + 900_000) == 2
        await until(lambda: len(sink.dead) == 2, what="two readings")  # signed ones; this sink maps plain JSON
    assert states == ["queued", "sent", "acked"]
    assert battery.registers(1)["import_j"] == 3000 * 900


async def test_the_broker_says_which_one_it_is(tmp_path: Path) -> None:
    async with start_broker(tmp_path, ACCOUNTS) as broker:
        assert broker.kind.split()[0] in ("mosquitto", "amqtt")
        assert broker.kind.split()[1][0].isdigit()
