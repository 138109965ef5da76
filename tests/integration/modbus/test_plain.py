"""Devices without SunSpec: what a command leaves behind is ended by the gateway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.modbus_server import ModbusServer
from support.sunspec import chain, model, places

from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_adapters.modbus.sunspec import point
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)


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
        section = {"interval_s": 0.05, "timeout_s": 60.0, "devices": {"battery": device}}
        adapter, sink = ModbusAdapter(ModbusConfig.from_section("plant", section)), RecordingSink()
        async with running(adapter, sink):
            life, now = Life(), time.time_ns() // 1_000_000
            parameters = {"power_w": -70_000, "from_ms": 1_700_000_000_000, "until_ms": 1_700_003_600_000}
            credential = f"{server.endpoint}/1"
            command = Command("c", "did:x", credential, "set_power", parameters, now + 600_000, "order")
            assert adapter.must_end(command)
            await adapter.execute(command, life)
            assert life.states[-1] is CommandState.ACKED
            assert await server.tell({"get": [1, 300, 3]}) == [0xFFFE, 0xEE90, 1]
            longer = {**parameters, "power_w": 1, "until_ms": parameters["from_ms"] + 3_600_000}
            newer = Command("d", "did:x", credential, "set_power", longer, now + 600_000, "order")
            await adapter.execute(newer, Life())
            await adapter.end(command)  # the newer one holds it
            assert await server.tell({"get": [1, 300, 3]}) == [0, 1, 1]
            await adapter.end(newer)
            await until(lambda: (1, 302, [0]) in server.writes, 60, "the end of the command")
            assert [(at, values) for _, at, values in server.writes] == [
                (300, [0xFFFE, 0xEE90]), (302, [1]), (300, [0, 1]), (302, [1]), (302, [0]),
            ]  # fmt: skip


BATTERY = {
    "registers": {"power_w": {"address": 100, "type": "s32", "unit": "W"}},
    "commands": {
        "set_power": [
            {"address": 300, "type": "s32", "parameter": "power_w", "unit": "W"},
            {"address": 302, "type": "u16", "value": 1, "revert": 0},
        ]
    },
}


def set_power(name: str, server: ModbusServer, power_w: int) -> Command:
    window = {"from_ms": 1_700_000_000_000, "until_ms": 1_700_003_600_000}
    expires_at = time.time_ns() // 1_000_000 + 600_000
    parameters = {"power_w": power_w, **window}
    return Command(name, "did:x", f"{server.endpoint}/1", "set_power", parameters, expires_at, "order")


@asynccontextmanager
async def battery() -> AsyncIterator[tuple[ModbusServer, ModbusAdapter]]:
    async with ModbusServer({1: [(100, [0, 5]), (300, [0, 0, 0])]}) as server:
        section = {
            "interval_s": 0.05,
            "timeout_s": 60.0,
            "devices": {"battery": {**BATTERY, "endpoint": server.endpoint}},
        }
        adapter, sink = ModbusAdapter(ModbusConfig.from_section("plant", section)), RecordingSink()
        async with running(adapter, sink):
            yield server, adapter


async def test_an_older_command_rules_again_after_a_newer_one() -> None:
    async with battery() as (server, adapter):
        older, newer = set_power("a", server, 70_000), set_power("b", server, 2)
        await adapter.execute(older, Life())
        await adapter.execute(newer, Life())
        await server.tell({"behave": "busy"})  # for one request: no reason to leave the older one out
        with pytest.raises(ConnectionError, match="puts it off"):
            await adapter.end(newer, older)
        await adapter.end(newer, older)
        assert await server.tell({"get": [1, 300, 3]}) == [1, 4_464, 1]
        await adapter.end(older)
        assert await server.tell({"get": [1, 302, 1]}) == [0]


async def test_a_command_that_the_device_refused_does_not_keep_an_older_one_for_ever() -> None:
    """The gateway leaves the older one's end to the newer one: it was sent, and how it ends is not known then."""
    async with battery() as (server, adapter):
        await adapter.execute(set_power("a", server, 70_000), Life())
        await server.tell({"behave": "refuse"})
        newer, life = set_power("b", server, 2), Life()
        await adapter.execute(newer, life)
        assert life.states[-1] is CommandState.FAILED
        await server.tell({"behave": "obey"})
        await adapter.end(newer)
        assert await server.tell({"get": [1, 302, 1]}) == [0]


async def test_what_the_registers_cannot_hold_was_never_sent() -> None:
    """Else it would hold the device from the end of an older one."""
    async with battery() as (server, adapter):
        life = Life()
        await adapter.execute(set_power("a", server, 1 << 40), life)
        assert life.states == [CommandState.QUEUED, CommandState.FAILED]
        assert await server.tell({"get": [1, 302, 1]}) == [0]


async def test_a_device_that_fails_now_is_ended_later() -> None:
    async with battery() as (server, adapter):
        command = set_power("a", server, 70_000)
        await adapter.execute(command, Life())
        await server.tell({"behave": "fail"})
        with pytest.raises(ConnectionError, match="device failure"):
            await adapter.end(command)
        await server.tell({"behave": "obey"})
        await adapter.end(command)
        assert await server.tell({"get": [1, 302, 1]}) == [0]


async def test_a_storage_that_takes_less_by_now_is_ended_all_the_same() -> None:
    """What it may charge with has gone below what it was told, or is not told any more."""
    storage = chain(
        model(1, Mn="Acme", Md="Box", SN="B-1"),
        model(103, W=345, W_SF=1, St=4),
        model(124, WChaMax=5000, WChaMax_SF=0, OutWRte=0, InWRte=0, InOutWRte_SF=-2, StorCtl_Mod=0),
    )
    async with ModbusServer({1: [storage]}) as server:
        device = {"endpoint": server.endpoint, "sunspec": "battery", "control": True}
        config = ModbusConfig.from_section(
            "plant", {"interval_s": 0.05, "timeout_s": 60.0, "devices": {"battery": device}}
        )
        adapter, sink = ModbusAdapter(config), RecordingSink()
        at = places(storage)[124]
        mode, most = at + point(124, "StorCtl_Mod").offset, at + point(124, "WChaMax").offset
        async with running(adapter, sink):
            for now_w in (1_000, 0xFFFF):
                command, life = set_power(f"c{now_w}", server, 4_000), Life()
                await server.tell({"set": [1, most, [5_000]]})
                await adapter.execute(command, life)
                assert life.states[-1] is CommandState.ACKED
                assert await server.tell({"get": [1, mode, 1]}) == [1]
                await server.tell({"set": [1, most, [now_w]]})
                await adapter.end(command)
                assert await server.tell({"get": [1, mode, 1]}) == [0]
