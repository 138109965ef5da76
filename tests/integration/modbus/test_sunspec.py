"""SunSpec devices on a pymodbus server: what they have is found out, read and commanded."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.modbus_server import ModbusServer
from support.sunspec import der, inverter, meter, model, places

from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_adapters.modbus.sunspec import point
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import Command, CommandState, DeviceFacts
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
UNITS = {1: inverter(), 2: der(), 3: meter()}


def section(server: ModbusServer, **more: Any) -> dict[str, Any]:
    kinds = {1: "inverter", 2: "battery", 3: "meter"}
    devices = {
        f"device-{unit}": {"endpoint": server.endpoint, "unit": unit, "sunspec": kind, "control": unit < 3}
        for unit, kind in kinds.items()
    }
    pace = {"interval_s": 0.05, "retry_refused_s": 0.3, "confirm_s": 0.5, "timeout_s": 60.0}
    return {**pace, "devices": devices, **more}


@asynccontextmanager
async def polled(**more: Any) -> AsyncIterator[tuple[ModbusServer, ModbusAdapter, RecordingSink]]:
    async with ModbusServer({unit: [image] for unit, image in UNITS.items()}) as server:
        adapter = ModbusAdapter(ModbusConfig.from_section("plant", section(server, **more)))
        sink = RecordingSink()
        async with running(adapter, sink):
            yield server, adapter, sink
        assert sink.faults == []


def latest(sink: RecordingSink, credential: str) -> Mapping[str, int]:
    found = [stored for stored in sink.stored if stored.frame.credential == credential]
    return found[-1].measurements[0].registers if found else {}


async def command(
    adapter: ModbusAdapter, unit: str, name: str, lasts_ms: int = 600_000, window_ms: int = 900_000, **parameters: int
) -> tuple[CommandState, str]:
    now = time.time_ns() // 1_000_000
    life = Life()
    window = {"from_ms": 1_700_000_000_000, "until_ms": 1_700_000_000_000 + window_ms}
    await adapter.execute(
        Command(f"{time.time_ns()}", "did:x", unit, name, {**parameters, **window}, now + lasts_ms, "order"), life
    )
    life.check()
    return life.states[-1], life.updates[-1].detail


async def test_devices_tell_what_they_are() -> None:
    async with polled() as (server, adapter, sink):
        units = [f"{server.endpoint}/{unit}" for unit in UNITS]
        await until(lambda: all(latest(sink, unit) for unit in units), 60, "a reading of each")
    assert list(adapter.facts()) == [
        (units[0], DeviceFacts("Acme", "Roof 10", "SN-1", "4.1.0")),
        (units[1], DeviceFacts("Acme", "Box 5", "DER-1")),
        (units[2], DeviceFacts("Acme", "Meter", "M-1")),
    ]


async def test_readings_of_the_models() -> None:
    async with polled() as (server, _, sink):
        units = [f"{server.endpoint}/{unit}" for unit in UNITS]
        await until(lambda: all(latest(sink, unit) for unit in units), 60, "a reading of each")
        assert latest(sink, units[0]) == {
            "power_w": -3450, "export_j": 1_234_560 * 3600, "reactive_var": 120, "voltage_mv": 230_500,
            "current_ma": 15_000,
        }  # fmt: skip
        assert latest(sink, units[1]) == {
            "power_w": 1234, "export_j": 10_000_000_000 * 3600, "import_j": 7_000 * 3600, "reactive_var": -55,
            "voltage_mv": 230_100, "current_ma": 5_400, "soc_permille": 432,
        }  # fmt: skip
        assert latest(sink, units[2]) == {
            "power_w": -250, "import_j": 77_000 * 3600, "export_j": 5_000 * 3600, "voltage_mv": 229_900,
            "current_ma": 1_100,
        }  # fmt: skip
        assert all(stored.measurements[0].notice is Notice.NONE for stored in sink.stored) and sink.dead == []


async def test_a_limit_and_a_storage_rate() -> None:
    async with polled() as (server, adapter, sink):
        unit = f"{server.endpoint}/1"
        await until(lambda: bool(latest(sink, unit)), 60, "a reading")
        began = time.monotonic()
        done = await command(adapter, unit, "limit_power", min_power_w=-2_500, max_power_w=10_000)
        least_s = 600 - (time.monotonic() - began)
        assert done[0] is CommandState.ACKED, done
        at = places(UNITS[1])

        async def told(number: int, name: str, of: int = 1) -> list[int]:
            each = point(number, name)
            where = places(UNITS[of])[number] + each.offset
            return list(await server.tell({"get": [of, where, each.size]}))

        assert await told(123, "WMaxLimPct") == [250] and await told(123, "WMaxLim_Ena") == [1]
        assert least_s <= (await told(123, "WMaxLimPct_RvrtTms"))[0] <= 600
        assert [write[1] for write in server.writes] == [at[123] + 5, at[123] + 7, at[123] + 9], "enabled last"
        state, detail = await command(adapter, unit, "limit_power", min_power_w=0, max_power_w=-5)
        assert state is CommandState.FAILED and "max_power_w" in detail
        assert (await command(adapter, unit, "set_power", power_w=1250))[0] is CommandState.ACKED
        assert await told(124, "InWRte") == [2500] and await told(124, "StorCtl_Mod") == [1]
        assert (await command(adapter, unit, "set_power", power_w=-5000))[0] is CommandState.ACKED
        assert await told(124, "OutWRte") == [10_000] and await told(124, "StorCtl_Mod") == [2]
        state, detail = await command(adapter, unit, "set_power", power_w=5001)
        assert state is CommandState.FAILED and "WChaMax" in detail
        assert (await command(adapter, unit, "switch", on=0))[0] is CommandState.ACKED
        assert await told(123, "Conn") == [0]
        second = f"{server.endpoint}/2"
        await until(lambda: bool(latest(sink, second)), 60, "a reading of the second")
        assert (await command(adapter, second, "set_power", power_w=-3000))[0] is CommandState.ACKED
        assert await told(704, "WSet", 2) == [0, 3000] and await told(704, "WSetEna", 2) == [1]
        assert (await command(adapter, second, "limit_power", min_power_w=-2500, max_power_w=0))[
            0
        ] is CommandState.ACKED
        assert await told(704, "WMaxLimPct", 2) == [50]
        with pytest.raises(ValueError, match="takes no command"):
            await command(adapter, f"{server.endpoint}/3", "switch", on=0)


async def test_registers_that_tell_something_else_are_no_success() -> None:
    async with polled() as (server, adapter, sink):
        unit = f"{server.endpoint}/1"
        await until(lambda: bool(latest(sink, unit)), 60, "a reading")
        await server.tell({"behave": "lie"})
        state, detail = await command(adapter, unit, "limit_power", min_power_w=-2_500, max_power_w=0)
        assert state is CommandState.FAILED and "something else" in detail
        await server.tell({"behave": "busy"})
        assert (await command(adapter, unit, "limit_power", min_power_w=-100, max_power_w=0))[0] is CommandState.ACKED


async def test_a_command_waits_for_its_window() -> None:
    async with polled() as (server, adapter, sink):
        unit = f"{server.endpoint}/1"
        await until(lambda: bool(latest(sink, unit)), 60, "a reading")
        began = time.monotonic()
        done = await command(adapter, unit, "switch", lasts_ms=601_000, window_ms=600_000, on=0)
        assert done[0] is CommandState.ACKED and time.monotonic() - began >= 0.9


async def test_a_device_that_becomes_another_is_refused() -> None:
    async with polled() as (server, adapter, sink):
        unit, other = f"{server.endpoint}/1", f"{server.endpoint}/3"
        await until(lambda: bool(latest(sink, unit)) and bool(latest(sink, other)), 60, "readings")
        serial = point(1, "SN")
        await server.tell({"set": [1, places(UNITS[1])[1] + serial.offset, [0x4141, 0]]})
        await until(lambda: [reason for _, reason in sink.dead] == ["wrong_serial"], 60, "the dead letter")
        before = len([s for s in sink.stored if s.frame.credential == unit])
        state, _ = await command(adapter, unit, "switch", lasts_ms=700, window_ms=700, on=0)
        assert state is CommandState.EXPIRED and server.writes == [], "another device is not commanded"
        count = len(sink.stored)
        await until(lambda: len(sink.stored) > count + 5, 60, "readings of the others")
        assert len([s for s in sink.stored if s.frame.credential == unit]) == before and len(sink.dead) == 1
        assert "serial" in adapter.trouble(unit) or "calls itself" in adapter.trouble(unit)


async def test_models_that_move_are_found_again() -> None:
    async with polled() as (server, _, sink):
        unit = f"{server.endpoint}/3"
        await until(lambda: bool(latest(sink, unit)), 60, "a reading")
        moved = [*model(203, W=42, W_SF=0), 0xFFFF, 0]
        at = places(UNITS[3])[203]
        await server.tell({"set": [3, at, [64_000, 0, *moved][: len(UNITS[3][1]) - at]]})
        await until(lambda: latest(sink, unit).get("power_w") == 42, 60, "the power of the moved model")
        assert "layout_changed" in {reason for _, reason in sink.dead}


async def test_a_fault_is_flagged() -> None:
    async with polled() as (server, _, sink):
        state = point(103, "St")
        await server.tell({"set": [1, places(UNITS[1])[103] + state.offset, [7]]})
        await until(lambda: any(s.measurements[0].notice & Notice.DEVICE_FLAGGED for s in sink.stored), 60, "the flag")


async def test_discovery_finds_what_is_not_configured() -> None:
    async with ModbusServer({unit: [image] for unit, image in UNITS.items()}) as server:
        whole = section(server, scan=[{"endpoint": server.endpoint, "units": [1, 2, 3, 4]}])
        del whole["devices"]["device-2"], whole["devices"]["device-3"]
        adapter = ModbusAdapter(ModbusConfig.from_section("plant", whole))
        assert [credential async for credential in adapter.discover()] == [
            f"{server.endpoint}/2", f"{server.endpoint}/3",
        ]  # fmt: skip
        found = [survey async for _, survey in adapter.look_around()]
        assert [(each.manufacturer, each.model, each.serial) for each in found] == [
            ("Acme", "Box 5", "DER-1"), ("Acme", "Meter", "M-1"),
        ]  # fmt: skip
        assert [each.model for each in found[0].models] == [1, 701, 702, 704, 713]
        alone = ModbusAdapter(ModbusConfig.from_section("plant", {"scan": whole["scan"]}))
        assert alone.endpoint == server.endpoint and not alone.connected and not alone.can_command
        async with running(alone, RecordingSink()):
            assert len([credential async for credential in alone.discover()]) == 3 and alone.connected
        assert not alone.connected
    with pytest.raises(ValueError, match="devices is missing: name some, or say with scan"):
        ModbusConfig.from_section("plant", {})


async def test_a_slow_unit_does_not_hold_up_another_endpoint() -> None:
    async with ModbusServer({1: [inverter()]}) as slow, ModbusServer({1: [inverter()]}) as quick:
        await slow.tell({"delay": {1: 3600.0}})
        devices = {
            name: {"endpoint": server.endpoint, "sunspec": "inverter"}
            for name, server in (("slow", slow), ("quick", quick))
        }
        whole = {"interval_s": 0.02, "timeout_s": 0.5, "devices": devices}
        adapter, sink = ModbusAdapter(ModbusConfig.from_section("plant", whole)), RecordingSink()
        async with running(adapter, sink):
            await until(lambda: len(sink.stored) >= 40, 60, "readings of the quick one")
            assert {stored.frame.credential for stored in sink.stored} == {f"{quick.endpoint}/1"}
            assert adapter.connected
