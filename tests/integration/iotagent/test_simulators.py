"""Simulated devices of Ultralight, FIWARE JSON and Sparkplug over Mosquitto: read and commanded by their adapters."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from support.mosquitto import mosquitto

from flexrelay.demo.broker import Account
from flexrelay_adapters import fiware_json, sparkplug, ultralight
from flexrelay_adapters.fiware_json import simulator as json_simulator
from flexrelay_adapters.sparkplug import simulator as sparkplug_simulator
from flexrelay_adapters.ultralight import simulator as ultralight_simulator
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.simulation import Battery, DeviceSimulator, Meter, Plan
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.mosquitto
MAPPING = {
    "registers": {"power_w": {"pointer": "/power_w", "unit": "W"}, "import_j": {"pointer": "/import_j", "unit": "J"}}
}
COMMANDS: dict[str, Any] = {"set_power": {}, "switch": {}}
ACCOUNTS = (
    Account("gw", "gw", read=("#",), write=("/#", "spBv1.0/#")),
    *(Account(name, name, read=("#",), write=("/#", "spBv1.0/#")) for name in ("meter-1", "battery-1")),
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def made(what: str, port: int) -> Any:
    broker = {"port": port, "client_id": "gw", "username": "gw", "password": "gw"}
    if what == "sparkplug":
        section = {**broker, "host_id": "host", **sparkplug_simulator.adapter_section()}
        return sparkplug.make_adapter("sim", section, Path(), NoNativeCodec())
    make = ultralight.make_adapter if what == "ultralight" else fiware_json.make_adapter
    return make("sim", {"mqtt": broker, "codec": MAPPING, "commands": COMMANDS}, Path(), NoNativeCodec())


SIMULATORS = {
    "ultralight": ultralight_simulator.make_simulator,
    "fiware_json": json_simulator.make_simulator,
    "sparkplug": sparkplug_simulator.make_simulator,
}


@pytest.mark.parametrize("what", SIMULATORS)
async def test_the_adapter_reads_and_commands_them(tmp_path: Path, what: str) -> None:
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as broker:
        start = now_ms()
        devices = [DeviceSimulator("meter-1", Meter(start)), DeviceSimulator("battery-1", Battery(start))]
        section = {"port": broker.port, "username": "{device}", "password": "{device}", "backoff_s": 0.1}
        simulator = SIMULATORS[what](section, tmp_path, devices, Plan(start, start, interval_s=0.3), "seed")
        adapter, sink = made(what, broker.port), RecordingSink()
        credential = "flexrelay/battery-1"
        async with running(adapter, sink):
            task = asyncio.create_task(simulator.run())
            try:

                def of_battery() -> list[int]:
                    found = [s for s in sink.stored if s.frame.credential == credential]
                    return [m.registers["power_w"] for s in found for m in s.measurements]

                async def told(name: str, **parameters: int) -> CommandState:
                    life = Life()
                    whole = {**parameters, "from_ms": now_ms() - 1000, "until_ms": now_ms() + 900_000}
                    command_id = f"{name}-{time.time_ns()}"
                    command = Command(command_id, "did:x", credential, name, whole, now_ms() + 120_000, "order")
                    await adapter.execute(command, life)
                    life.check()
                    return life.states[-1]

                await until(lambda: len(of_battery()) >= 2, what="readings")
                assert await told("set_power", power_w=1200) is CommandState.ACKED
                await until(lambda: of_battery()[-1] == 1200, what="a reading that shows it")
                devices[1].fault = "refuses"
                assert await told("switch", on=0) is CommandState.FAILED
                await broker.restart()
                before = len(of_battery())
                await until(lambda: len(of_battery()) > before + 1, 60, "readings after the outage")
                assert sink.dead == [] and sink.faults == [] and simulator.stats.commands >= 2
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("what", SIMULATORS)
async def test_a_wrong_password_ends_the_simulator(tmp_path: Path, what: str) -> None:
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as broker:
        start = now_ms()
        section = {"port": broker.port, "username": "{device}", "password": "wrong"}
        devices = [DeviceSimulator("meter-1", Meter(start))]
        simulator = SIMULATORS[what](section, tmp_path, devices, Plan(start, start), "seed")
        async with asyncio.timeout(120):
            with pytest.raises(ConnectionError, match="turns meter-1 away"):
                await simulator.run()
