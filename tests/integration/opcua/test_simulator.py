"""Simulated devices: read and commanded by the adapter, and by a client of node-opcua."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.opcua_rig import shared
from support.opcua_server import CLIENT, HOME, free_port, need_node_opcua, now_ms

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig, TrustList
from flexrelay_adapters.opcua.simulator import NAMESPACE, OpcuaSimulator, device_sections, make_simulator
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.simulation import Battery, DeviceSimulator, Meter, Plan
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 150.0


@asynccontextmanager
async def simulated(
    section: dict[str, Any], folder: Path
) -> AsyncIterator[tuple[OpcuaSimulator, list[DeviceSimulator]]]:
    start = now_ms()
    devices = [DeviceSimulator("meter-1", Meter(start)), DeviceSimulator("battery-1", Battery(start))]
    simulator = make_simulator(section, folder, devices, Plan(start, start, interval_s=1.0), "seed")
    task = asyncio.create_task(simulator.run())
    try:
        await until(lambda: task.done() or simulator.started.is_set(), PATIENCE_S, "the simulator")
        if task.done():
            task.result()
        yield simulator, devices
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_adapter_reads_and_commands_them(tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}/flexrelay"
    async with simulated({"url": url, "history": 1000}, tmp_path) as (simulator, devices):
        section = {
            "url": url,
            "security": "None",
            "publishing_ms": 100.0,
            "sampling_ms": 0.0,
            "timeout_s": 60.0,
            "state": str(tmp_path),
            "devices": device_sections(devices),
        }
        adapter, sink = OpcuaAdapter(OpcuaConfig.from_section("sim", section)), RecordingSink()
        async with running(adapter, sink, connect_s=PATIENCE_S):
            credential = adapter.config.credential("battery-1")

            def of_battery() -> list[dict[str, int]]:
                found = [s for s in sink.stored if s.frame.credential == credential]
                return [dict(m.registers) for s in found for m in s.measurements]

            await until(lambda: len(of_battery()) >= 2, PATIENCE_S, "readings")
            assert all(set(each) == {"import_j", "export_j", "power_w", "soc_permille"} for each in of_battery())

            async def told(name: str, lasts_ms: int = 300_000, **parameters: int) -> CommandState:
                life = Life()
                window = {"from_ms": now_ms() - 1000, "until_ms": now_ms() + 900_000}
                command = Command(
                    f"{name}-{time.time_ns()}", "did:x", credential, name, {**parameters, **window},
                    now_ms() + lasts_ms, "order",
                )  # fmt: skip
                await adapter.execute(command, life)
                life.check()
                return life.states[-1]

            assert await told("set_power", power_w=1200) is CommandState.ACKED
            await until(lambda: of_battery()[-1]["power_w"] == 1200, PATIENCE_S, "a reading that shows it")
            assert await told("set_power", power_w=10**6) is CommandState.FAILED
            assert await told("set_power", lasts_ms=-1, power_w=0) is CommandState.EXPIRED
            with pytest.raises(ValueError, match="takes no command"):
                await adapter.execute(
                    Command("x", "did:x", adapter.config.credential("meter-1"), "set_power", {}, now_ms(), "o"), Life()
                )
            assert simulator.stats.commands == 2 and sink.dead == []


async def test_a_server_that_takes_few_publish_requests(tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}/flexrelay"
    async with simulated({"url": url}, tmp_path) as (_, devices):
        section = {
            "url": url,
            "security": "None",
            "publishing_ms": 100.0,
            "publish_requests": 32,
            "timeout_s": 60.0,
            "state": str(tmp_path),
            "devices": device_sections(devices),
        }
        adapter, sink = OpcuaAdapter(OpcuaConfig.from_section("sim", section)), RecordingSink()
        async with running(adapter, sink, connect_s=PATIENCE_S):
            await until(lambda: len(sink.batches) >= 5, PATIENCE_S, "readings")
            assert adapter.stats.connections == 1 and adapter.publish_requests < 32


async def test_a_client_of_node_opcua(tmp_path: Path) -> None:
    need_node_opcua()
    url = f"opc.tcp://127.0.0.1:{free_port()}/flexrelay"
    TrustList(tmp_path / "pki").make_own(NAMESPACE, "127.0.0.1")
    async with simulated({"url": url, "pki": "pki"}, tmp_path) as (simulator, devices):
        await until(lambda: simulator.stats.sent >= 4, PATIENCE_S, "readings")
        now = now_ms()
        arguments = [
            ["String", "id-1"],
            ["Int64", 800],
            ["Int64", now],
            ["Int64", now + 10**6],
            ["DateTime", now + 600_000],
        ]
        call = {"object": "battery-1", "method": "battery-1.set_power", "arguments": arguments}
        late = {**call, "arguments": [["String", "id-2"], *arguments[1:4], ["DateTime", now - 60_000]]}
        orders = {
            "security": "Basic256Sha256",
            "namespace": NAMESPACE,
            "pki": str(shared() / "pki-client"),
            "read": ["battery-1.soc_permille", "meter-1.voltage_mv"],
            "calls": [call, call, late],
        }
        process = await asyncio.create_subprocess_exec(
            "node", str(CLIENT), url, json.dumps(orders),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_OPCUA_HOME": str(HOME)},
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE_S):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        (line,) = [line for line in output.decode().splitlines() if line.startswith("ANSWER ")] or [
            errors.decode()[-2000:]
        ]
        answer = json.loads(line.removeprefix("ANSWER "))
        assert answer["calls"] == ["Good", "Good", "BadNoCommunication"], "twice the same id is done once, late is not"
        soc = answer["values"]["battery-1.soc_permille"]
        assert soc["status"] == "Good" and 0 <= soc["value"] <= 1000 and abs(soc["time"] - now) < 2 * PATIENCE_S * 1000
        assert simulator.stats.commands == 2 and len(devices[1].model._orders) == 1
