"""The simulated fleet against a real broker: back-fill, signatures, a damaged copy, commands obeyed and refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.mosquitto import mosquitto
from support.sinks import MemorySink, until

from flexrelay.demo.broker import Mosquitto, device_account, gateway_account
from flexrelay.demo.devices import Device, DeviceIdentity, Fleet, device_key
from flexrelay.demo.plants import BatteryPlant, SeriesPlant
from flexrelay_adapters.mqtt import MqttAdapter
from flexrelay_schemas.did import Create, key_hash
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import multikey, verify
from flexrelay_schemas.reading import SignedReading
from flexrelay_sdk import Command, CommandState, CommandUpdate, Decoded, Frame

from .conftest import config

START = 1_463_004_000_000
ISP_MS = 900_000


def identity(name: str) -> tuple[DeviceIdentity, str]:
    key = device_key("test", name)
    public = multikey(key.public_key())
    create = Create(network="simnet", kind="device", key=public, next_key_hash=key_hash("z"), nonce="0" * 32)
    return DeviceIdentity(name, create.did(), key.sign, "pw-" + name), public


class Pass:
    def decode(self, frame: Frame) -> Decoded:
        return Decoded(())


@pytest.fixture
def devices() -> list[Device]:
    meter = SeriesPlant([(-1) ** index * 100 * index for index in range(96)])
    battery = BatteryPlant(rated_w=5000, capacity_wh=10_000, start_ms=START)
    return [
        Device(identity("meter")[0], meter, ["dso", "agg"], start_ms=START),
        Device(identity("battery")[0], battery, ["dso"], start_ms=START),
    ]


@pytest.fixture
async def fleet_broker(tmp_path: Path, devices: list[Device]) -> AsyncIterator[Mosquitto]:
    accounts = [device_account(device.scid, device.identity.password) for device in devices]
    accounts += [gateway_account(org, f"gateway-{org}", "secret-g") for org in ("dso", "agg")]
    async with mosquitto(tmp_path / "broker", accounts) as running:
        yield running


@pytest.mark.mosquitto
async def test_a_day_reaches_both_organisations_and_one_copy_is_damaged(
    fleet_broker: Mosquitto, devices: list[Device]
) -> None:
    sinks = {"dso": MemorySink(), "agg": MemorySink()}
    meter, _ = devices
    meter.damage(7, "agg")
    tasks = []
    for org, sink in sinks.items():
        settings = config(
            fleet_broker,
            client_id=org,
            username=f"gateway-{org}",
            readings=(f"flexrelay/v1/{org}/{{device}}/readings",),
            commands=None,
            results=None,
        )
        adapter = MqttAdapter(settings, Pass())
        tasks.append(asyncio.create_task(adapter.run(sink)))
        await adapter.wait_connected()
    fleet = Fleet(devices, host=fleet_broker.host, port=fleet_broker.port, now=lambda: START + 96 * ISP_MS)
    async with fleet:
        assert await fleet.advance() == 97 * 3
        assert await fleet.advance() == 0
    await until(lambda: len(sinks["dso"].frames) == 194 and len(sinks["agg"].frames) == 97, what="all readings")
    for task in tasks:
        task.cancel()
    public = identity("meter")[1]
    for org, bad in (("dso", []), ("agg", [7])):
        wrong = []
        frames = [frame for frame in sinks[org].frames if frame.credential == meter.scid]
        for frame in frames:
            signed = SignedReading.model_validate_json(frame.payload)
            if not verify(public, b64u_decode(signed.signature), signed.reading.message()):
                wrong.append(signed.reading.seq)
        assert [json.loads(frame.payload)["reading"]["seq"] for frame in frames] == list(range(97))
        assert wrong == bad


@pytest.mark.mosquitto
@pytest.mark.parametrize(
    ("fault", "power_w", "states"),
    [
        ("none", 4000, ["queued", "sent", "acked"]),
        ("none", 9000, ["queued", "sent", "failed"]),
        ("refuses", 4000, ["queued", "sent", "failed"]),
        ("deaf", 4000, ["queued", "sent", "expired"]),
        ("silent", 4000, ["queued", "sent", "acked"]),
    ],
)
async def test_batteries_obey_and_fail_as_told(
    fleet_broker: Mosquitto, devices: list[Device], fault: str, power_w: int, states: list[str]
) -> None:
    battery = devices[1]
    battery.fault = fault  # type: ignore[assignment]  # a parameter of the test
    adapter = MqttAdapter(config(fleet_broker), Pass())
    running = asyncio.create_task(adapter.run(MemorySink()))
    await adapter.wait_connected()
    updates: list[CommandUpdate] = []

    async def note(update: CommandUpdate) -> None:
        updates.append(update)

    async with Fleet(devices, host=fleet_broker.host, port=fleet_broker.port, now=lambda: START) as fleet:
        lasts_ms = 3_000 if states[-1] == "expired" else 120_000
        command = Command(
            "c1",
            battery.identity.did,
            battery.scid,
            "set_power",
            {"power_w": power_w, "from_ms": START, "until_ms": START + ISP_MS},
            time.time_ns() // 1_000_000 + lasts_ms,
            "order-1",
        )
        await adapter.execute(command, note)
        await fleet.advance(START + ISP_MS)
    running.cancel()
    assert [update.state.value for update in updates] == states
    did_it = fault == "none" and updates[-1].state is CommandState.ACKED
    assert battery.plant.registers(1)["import_j"] == (power_w * 900 if did_it else 0)
