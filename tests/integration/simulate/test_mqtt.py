"""`flexrelay simulate` over MQTT: readings come in through the adapter, repeat by seed, and commands act."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.mosquitto import mosquitto

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay_adapters.mqtt import MqttAdapter, make_adapter
from flexrelay_adapters.mqtt.simulator import make_simulator
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.simulation import Plan, Profile, ProtocolSimulator, make_devices
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.mosquitto

T0 = 1_463_738_400_000
SERIES = {"home": [400, 900, -300], "roof": [0, 2_000, 4_000]}
PROFILE = {
    "step_s": 60,
    "series": SERIES,
    "devices": [
        {"kind": "meter", "series": "home"},
        {"kind": "pv", "series": "roof"},
        {"kind": "battery", "parameters": {"rated_w": 3_000, "ramp_w": 500}},
    ],
}
REGISTERS = {
    "import_j": {"pointer": "/import_j", "unit": "J"},
    "export_j": {"pointer": "/export_j", "unit": "J"},
    "power_w": {"pointer": "/power_w", "unit": "W"},
    "soc_permille": {"pointer": "/soc_permille", "unit": "permille", "required": False},
}
ACCOUNTS = (
    Account("devices", "secret-d", read=("flexrelay/v1/sim/#",), write=("flexrelay/v1/sim/#",)),
    Account("gateway", "secret-g", read=("flexrelay/v1/sim/#",), write=("flexrelay/v1/sim/#",)),
)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as started:
        yield started


def gateway(broker: Mosquitto) -> MqttAdapter:
    section = {
        "port": broker.port,
        "client_id": "gateway",
        "username": "gateway",
        "password": "secret-g",
        "readings": ["flexrelay/v1/sim/{device}/readings"],
        "commands": "flexrelay/v1/sim/{device}/commands",
        "results": "flexrelay/v1/sim/{device}/results",
        "codec": {"observed_at": {"pointer": "/observed_at", "form": "ms"}, "seq": "/seq", "registers": REGISTERS},
        "backoff_min_s": 0.05,
    }
    return make_adapter("sim", section, Path(), NoNativeCodec())


def simulator(broker: Mosquitto, count: int, seed: str = "s", password: str = "secret-d") -> ProtocolSimulator:
    devices = make_devices(Profile.model_validate(PROFILE), count, seed, T0)
    plan = Plan(T0, time.time_ns() // 1_000_000, interval_s=30, rate=120)
    section = {"port": broker.port, "username": "devices", "password": password, "backoff_s": 0.1}
    return make_simulator(section, Path(), devices, plan, seed)


@asynccontextmanager
async def live(simulated: ProtocolSimulator) -> AsyncIterator[None]:
    task = asyncio.create_task(simulated.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def readings(broker: Mosquitto, seed: str, each: int) -> dict[tuple[str, int], Any]:
    """The first `each` readings of nine devices, by device and count."""
    sink = RecordingSink()
    async with running(gateway(broker), sink), live(simulator(broker, 9, seed)):
        await until(lambda: sum(m.seq == each for m in sink.measurements) == 9, what=f"{each} readings a device")
    assert sink.dead == []
    return {
        (stored.frame.credential, m.seq or 0): (m.observed_at, dict(m.registers))
        for stored in sink.stored
        for m in stored.measurements
        if (m.seq or 0) <= each
    }


async def test_the_same_seed_gives_the_same_readings(broker: Mosquitto) -> None:
    first = await readings(broker, "a", 6)
    assert first == await readings(broker, "a", 6)
    assert first != await readings(broker, "b", 6)
    assert {name for name, _ in first} >= {"meter-1", "pv-2", "battery-3", "battery-9"} and len(first) == 54
    for (name, seq), (observed_at, registers) in first.items():
        assert T0 < observed_at <= T0 + 30_000 * (seq + 1)
        assert registers["import_j"] >= 0 and (
            name.startswith("battery")
            or registers["power_w"]
            in ({*SERIES["home"]} if name.startswith("meter") else {-value for value in SERIES["roof"]})
        )


async def test_a_battery_obeys_with_its_ramp_and_readings_show_it(broker: Mosquitto) -> None:
    sink, life = RecordingSink(), Life()
    adapter = gateway(broker)
    async with running(adapter, sink), live(simulator(broker, 3)):
        await until(lambda: len(sink.stored) > 3)
        now = max(m.observed_at for m in sink.measurements)
        parameters = {"power_w": 2_000, "from_ms": now, "until_ms": now + 3_600_000}
        expires = time.time_ns() // 1_000_000 + 120_000
        await adapter.execute(Command("c1", "did:x", "battery-3", "set_power", parameters, expires, "o"), life)
        await until(lambda: 2_000 in sink.values(), what="the power that it was told")
        too_much = {**parameters, "power_w": 3_001}
        refused = Life()
        await adapter.execute(Command("c2", "did:x", "battery-3", "set_power", too_much, expires, "o"), refused)
    assert life.states[-1] is CommandState.ACKED and refused.states[-1] is CommandState.FAILED
    assert "-3000 to 3000" in refused.updates[-1].detail


async def test_devices_come_back_after_the_broker_and_lose_nothing(broker: Mosquitto) -> None:
    sink = RecordingSink()
    simulated = simulator(broker, 3)
    async with running(gateway(broker), sink), live(simulated):
        await until(lambda: len(sink.stored) >= 6)
        await broker.restart()
        before = len(sink.stored)
        await until(lambda: simulated.stats.reconnects >= 3, what="that all are back")
        await until(lambda: len(sink.stored) >= before + 9, what="readings after the restart")
        await asyncio.sleep(0.2)
    for device in ("meter-1", "pv-2", "battery-3"):
        counts = {m.seq for s in sink.stored if s.frame.credential == device for m in s.measurements}
        assert counts == set(range(1, max(counts) + 1)), f"{device}: a gap"  # type: ignore[type-var]  # all count


async def test_a_wrong_password_is_said_and_ends_it(broker: Mosquitto) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionError, match=r"turns meter-1 away.*check username and password"):
            await simulator(broker, 1, password="wrong").run()


async def test_the_program(broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "day.json").write_text(json.dumps(PROFILE))
    (tmp_path / "to.toml").write_text(f'port = {broker.port}\nusername = "devices"\npassword = "secret-d"\n')
    program = [str(Path(sys.executable).with_name("flexrelay")), "simulate", "--protocol", "mqtt", "--json"]
    sink = RecordingSink()

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [*program, "--profile", str(tmp_path / "day.json"), *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)

    async with running(gateway(broker), sink):
        options = ("--devices", "6", "--every", "30", "--rate", "60", "--to", str(tmp_path / "to.toml"))
        for seconds in ("3", "30", "120"):  # a busy machine may do nothing in the first
            done = await asyncio.to_thread(run, *options, "--for", seconds)
            assert done.returncode == 0, done.stderr
            counted = json.loads(done.stdout.splitlines()[-1])
            if counted["confirmed"] >= 12:
                break
        assert counted["confirmed"] >= 12 and counted["sent"] - counted["confirmed"] <= 6
        await until(lambda: len(sink.stored) >= counted["confirmed"])
    for options, says, code in (
        (("--set", "port=0"), "port: ", 2),
        (("--set", "speed=1"), "speed is not a known key", 2),
        (("--set", "speed"), "KEY=VALUE", 2),
        (("--protocol", "telepathy"), "there are .*mqtt", 2),
        (("--to", str(tmp_path / "to.toml"), "--set", "password=wrong", "--for", "120"), "check username", 4),
    ):
        done = await asyncio.to_thread(run, *options)
        assert done.returncode == code, done.stdout + done.stderr
        message = " ".join(json.loads(done.stdout.splitlines()[-1])["error"]["message"].split())
        assert re.search(says, message), message
