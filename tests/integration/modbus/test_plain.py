"""Devices without SunSpec: what a command leaves behind is ended by the gateway."""

from __future__ import annotations

import time

import pytest
from support.modbus_server import ModbusServer

from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(90)


async def test_a_command_is_ended_when_its_window_is_over() -> None:
    async with ModbusServer({1: [(100, [0, 5]), (300, [0, 0, 0])]}) as server:
        steps = [
            {"address": 300, "type": "s32", "parameter": "power_w", "unit": "W"},
            {"address": 302, "type": "u16", "value": 1, "revert": 0},
        ]
        device = {
            "endpoint": server.endpoint,
            "registers": {"power_w": {"address": 100, "type": "s32", "unit": "W"}},
            "commands": {"set_power": steps},
        }
        section = {"interval_s": 0.05, "devices": {"battery": device}}
        adapter, sink = ModbusAdapter(ModbusConfig.from_section("plant", section)), RecordingSink()
        async with running(adapter, sink):
            life, now = Life(), time.time_ns() // 1_000_000
            parameters = {"power_w": -70_000, "from_ms": 1_700_000_000_000, "until_ms": 1_700_003_600_000}
            credential = f"{server.endpoint}/1"
            command = Command("c", "did:x", credential, "set_power", parameters, now + 60_000, "order")
            assert adapter.must_end(command)
            await adapter.execute(command, life)
            assert life.states[-1] is CommandState.ACKED
            assert await server.tell({"get": [1, 300, 3]}) == [0xFFFE, 0xEE90, 1]
            longer = {**parameters, "power_w": 1, "until_ms": parameters["from_ms"] + 3_600_000}
            newer = Command("d", "did:x", credential, "set_power", longer, now + 60_000, "order")
            await adapter.execute(newer, Life())
            await adapter.end(command)  # the newer one holds it
            assert await server.tell({"get": [1, 300, 3]}) == [0, 1, 1]
            await adapter.end(newer)
            await until(lambda: (1, 302, [0]) in server.writes, 20, "the end of the command")
            assert [(at, values) for _, at, values in server.writes] == [
                (300, [0xFFFE, 0xEE90]), (302, [1]), (300, [0, 1]), (302, [1]), (302, [0]),
            ]  # fmt: skip
