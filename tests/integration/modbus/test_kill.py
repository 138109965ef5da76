"""kill -9 of a gateway in the middle of a command: the device does not stay at what it was told.

The device is a pymodbus server in a process of its own, which outlives the gateway; what is written to it is seen
there. The gateway's clock is put forward where a command has to be over.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from support.commanding_gateway import CommandingGateway, put_forward
from support.modbus_server import ModbusServer
from support.sunspec import inverter, places

from flexrelay_adapters.modbus.sunspec import point

pytestmark = pytest.mark.timeout(600)

POWER, ENABLE = 300, 302
HOUR_MS = 3_600_000


def started(
    folder: Path, section: dict[str, Any], *commands: dict[str, Any]
) -> AbstractAsyncContextManager[CommandingGateway]:
    (device,) = section["devices"].values()
    return CommandingGateway.started(folder, "modbus", section, f"{device['endpoint']}/1", *commands)


def section(server: ModbusServer) -> dict[str, Any]:
    steps = [
        {"address": POWER, "type": "s32", "parameter": "power_w", "unit": "W"},
        {"address": ENABLE, "type": "u16", "value": 1, "revert": 0},
    ]
    battery = {
        "endpoint": server.endpoint,
        "registers": {"power_w": {"address": 100, "type": "s32", "unit": "W"}},
        "commands": {"set_power": steps},
    }
    return {"interval_s": 0.1, "backoff_max_s": 0.5, "timeout_s": 60.0, "devices": {"battery": battery}}


def battery() -> ModbusServer:
    return ModbusServer({1: [(100, [0, 5]), (POWER, [0, 0, 0])]})


def command(order: str, power_w: int, expires_at: int, lasts_ms: int = 2 * HOUR_MS) -> dict[str, Any]:
    parameters = {"power_w": power_w, "from_ms": expires_at - lasts_ms, "until_ms": expires_at}
    return {"order": order, "name": "set_power", "parameters": parameters, "expires_at": expires_at}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def ends(server: ModbusServer) -> int:
    return sum((address, values) == (ENABLE, [0]) for _, address, values in server.writes)


@pytest.mark.parametrize("when", ["first register written", "acknowledged"])
async def test_a_killed_gateways_command_is_ended_after_the_restart(tmp_path: Path, when: str) -> None:
    async with battery() as server:
        told = command("one", -7000, now_ms() + HOUR_MS)
        async with started(tmp_path, section(server), told) as gateway:
            if when == "acknowledged":
                await gateway.until(lambda: gateway.states.get("one") == "acked", "the acknowledgement")
            else:
                await gateway.until(lambda: bool(server.writes), "the first write")
            await gateway.kill()
        put_forward(tmp_path, 2 * HOUR_MS)  # nobody is there: the device is at what it was told
        assert ends(server) == 0 and await server.tell({"get": [1, POWER, 2]}) == [0xFFFF, 0x10000 - 7000]
        async with started(tmp_path, section(server), told) as gateway:
            await gateway.until(lambda: gateway.to_end == 0 and "one" in gateway.states, "the end")
            await gateway.until(lambda: gateway.states["one"] in ("acked", "expired"), "the state")
            assert await server.tell({"get": [1, ENABLE, 1]}) == [0] and ends(server) == 1
        writes = len(server.writes)
        async with started(tmp_path, section(server), told) as gateway:
            await gateway.until(lambda: gateway.to_end == 0 and "one" in gateway.states, "the start")
            await asyncio.sleep(0.6)
        assert len(server.writes) == writes, "what is ended is not ended again"


async def test_a_device_that_is_away_is_ended_when_it_is_back(tmp_path: Path) -> None:
    async with battery() as server:
        told = command("one", 3000, now_ms() + HOUR_MS)
        async with started(tmp_path, section(server), told) as gateway:
            await gateway.until(lambda: gateway.states.get("one") == "acked" and gateway.to_end == 1, "the command")
            await server.stop()
            put_forward(tmp_path, 2 * HOUR_MS)
            await asyncio.sleep(0.6)
            assert gateway.to_end == 1
        async with started(tmp_path, section(server), told) as gateway:
            await gateway.until(lambda: gateway.to_end == 1, "the start")
            await server.start()
            await gateway.until(lambda: gateway.to_end == 0, "the end")
            assert await server.tell({"get": [1, ENABLE, 1]}) == [0]
            assert server.writes[-1] == (1, ENABLE, [0]) and ends(server) == 1


async def test_a_newer_command_is_not_ended_with_the_older_one(tmp_path: Path) -> None:
    async with battery() as server:
        begin = now_ms()
        older, newer = command("older", 1000, begin + HOUR_MS), command("newer", 2000, begin + 2 * HOUR_MS, 3 * HOUR_MS)
        async with started(tmp_path, section(server), older) as gateway:
            await gateway.until(lambda: gateway.states.get("older") == "acked", "the older one")
        async with started(tmp_path, section(server), older, newer) as gateway:
            await gateway.until(lambda: gateway.states.get("newer") == "acked" and gateway.to_end == 2, "the newer one")
            await gateway.kill()
        put_forward(tmp_path, HOUR_MS + 60_000)
        async with started(tmp_path, section(server), older, newer) as gateway:
            await gateway.until(lambda: gateway.to_end == 1, "the end of the older one")
            assert ends(server) == 0, "the newer one was ended with it"
            put_forward(tmp_path, 3 * HOUR_MS)
            await gateway.until(lambda: gateway.to_end == 0, "the end of the newer one")
            assert await server.tell({"get": [1, POWER, 3]}) == [0, 2000, 0] and ends(server) == 1


async def test_a_sunspec_timer_ends_it_in_the_device(tmp_path: Path) -> None:
    """WMaxLimPct_RvrtTms is written with what is left, before the limit counts: no gateway is needed."""
    image = inverter()
    async with ModbusServer({1: [image]}) as server:
        controls = places(image)[123]
        expires_at = now_ms() + HOUR_MS
        parameters = {
            "min_power_w": -5000,
            "max_power_w": 0,
            "from_ms": expires_at - 2 * HOUR_MS,
            "until_ms": expires_at,
        }
        told = {"order": "one", "name": "limit_power", "parameters": parameters, "expires_at": expires_at}
        roof = {"endpoint": server.endpoint, "sunspec": "inverter", "control": True}
        whole = {"interval_s": 0.1, "backoff_max_s": 0.5, "timeout_s": 60.0, "devices": {"roof": roof}}
        async with started(tmp_path, whole, told) as gateway:
            await gateway.until(lambda: gateway.states.get("one") == "acked", "the acknowledgement")
            await gateway.kill()
        told_at = [address - controls for _, address, _ in server.writes]
        timer, enable = (point(123, name).offset for name in ("WMaxLimPct_RvrtTms", "WMaxLim_Ena"))
        assert told_at.index(timer) < told_at.index(enable)
        (left_s,) = next(values for _, address, values in server.writes if address == controls + timer)
        assert 1 <= left_s <= HOUR_MS // 1000
        writes = len(server.writes)
        put_forward(tmp_path, 2 * HOUR_MS)
        async with started(tmp_path, whole, told) as gateway:
            await gateway.until(lambda: gateway.to_end == 0, "that there is nothing to end")
        assert len(server.writes) == writes
