"""Our simulated devices at a Leshan server: what they say is understood by an implementation that is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.leshan import leshan, needs_leshan
from support.lwm2m_devices import free_ports

from flexrelay_adapters.lwm2m.device import DeviceClient, Tree
from flexrelay_adapters.lwm2m.simulator import Lwm2mSimulator, make_simulator, psk_of
from flexrelay_sdk.simulation import Plan, Profile, make_devices

pytestmark = [needs_leshan, pytest.mark.timeout(600)]

T0 = 1_700_000_000_000
PROFILE = {
    "step_s": 60,
    "series": {"home": [400, 900, 300]},
    "devices": [
        {"kind": "meter", "series": "home"},
        {"kind": "battery", "parameters": {"rated_w": 5_000, "ramp_w": 5_000}},
    ],
}


@asynccontextmanager
async def simulated(port: int, tmp_path: Path, **changes: Any) -> AsyncIterator[Lwm2mSimulator]:
    profile = Profile.model_validate(PROFILE)
    devices = make_devices(profile, 2, "seed", T0)
    plan = Plan(T0, 0, interval_s=1.0, wall=_wall())
    section = {"port": port, "rated_w": 5_000, "backoff_s": 0.2, **changes}
    simulator = make_simulator(section, tmp_path, devices, plan, "seed")
    assert isinstance(simulator, Lwm2mSimulator)
    running = asyncio.create_task(simulator.run())
    try:
        yield simulator
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _wall() -> Any:
    began = asyncio.get_running_loop().time()
    return lambda: int((asyncio.get_running_loop().time() - began) * 1000)


async def test_simulated_devices(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with leshan("Gateway", port=port) as server, simulated(port, tmp_path) as simulator:
        told = await server.says("registered meter-1")
        assert "3421/0" in told
        await server.says(f"data meter-1 {T0 + 1000} /3421/0/23 400.0")
        await server.says("data battery-2")
        read = await server.do("read meter-1 112 /3421/0/23", "read")
        assert "SUCCESS" in read or "CONTENT" in read, read
        read = await server.do("read meter-1 11542 /3421/0", "read")
        assert "id=25" in read, read
        assert "3421/0/25" in await server.do("discover meter-1 /3421", "discover")
        composite = await server.do("composite battery-2 112 /3421/0/23 /3411/0/1", "composite")
        assert "50" in composite, composite
        await server.do("observe meter-1 110 /3421/0/23", "observe")
        await server.says("notified /3421/0/23")
        start = T0 // 1000
        event = await server.do(f"event battery-2 112 /3310/0 ev-1 {start} 60 40", "event")
        assert "CHANGED" in event, event
        await server.says("data battery-2")
        for _ in range(240):
            if any("/3421/0/23 2000.0" in line for line in server.told):
                break
            await asyncio.sleep(0.25)
        assert any("data battery-2" in line and "/3421/0/23 2000.0" in line for line in server.told)
        refused = await server.do(f"event meter-1 112 /3310/0 ev-2 {start} 60 40", "event")
        assert "NOT_ALLOWED" in refused.upper(), refused
        assert simulator.stats.confirmed > 2


async def test_with_psk(tmp_path: Path) -> None:
    port, secure = free_ports(2)
    key = psk_of("seed", "meter-1").hex()
    arguments = {"port": port, "securePort": secure, "endpoint": "meter-1", "identity": "meter-1", "key": key}
    async with leshan("Gateway", **arguments) as server, simulated(secure, tmp_path, psk=True):
        await server.says("registered meter-1")
        await server.says(f"data meter-1 {T0 + 1000} /3421/0/23 400.0")


async def test_large_objects_go_in_blocks(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with leshan("Gateway", port=port) as server:
        values: dict[tuple[int, ...], Any] = {(1, 0, 0): 1, (3, 0, 0): "x" * 3_000}
        values |= {(3421, number, 23): 1.5 for number in range(120)}  # the registration is several blocks too
        device = DeviceClient(("127.0.0.1", port), "large", Tree(values))
        await device.open()
        await device.register()
        assert "3421/119" in await server.says("registered large")
        assert "x" * 3_000 in await server.do("read large 110 /3/0/0", "read")
        await device.update()
        await server.says("updated large")
        await device.deregister()
        await server.says("unregistered large")
        device.close()
