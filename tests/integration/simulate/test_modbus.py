"""`flexrelay simulate` over Modbus: SunSpec devices are surveyed, polled and written to by the adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.modbus_server import free_port
from support.simulated import (
    NAMES,
    PATIENCE_S,
    T0,
    Reckoned,
    command,
    devices,
    free_ports,
    gateway,
    living,
    now_ms,
    plan,
    shown,
    told,
)

from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_adapters.modbus.device import SunSpecDevice
from flexrelay_adapters.modbus.simulator import ModbusSimulator, make_simulator, serial_of
from flexrelay_adapters.modbus.sunspec import points
from flexrelay_adapters.modbus.sunspec.layout import BASE
from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk import CommandState
from flexrelay_sdk.simulation import Plan
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(300)
COUNT = 12


def adapter(simulator: ModbusSimulator) -> ModbusAdapter:
    section = {"interval_s": 0.03, "timeout_s": 20.0, "backoff_min_s": 0.05, "devices": simulator.adapter_section()}
    return ModbusAdapter(ModbusConfig.from_section("plant", section))


def as_carried(name: str, registers: dict[str, int]) -> dict[str, int]:
    """A sample as registers carry it: whole Wh, 10 mV. A meter's 32-bit counter of 0 is none."""
    carried = {"power_w": registers["power_w"]}
    for each in ("import_j", "export_j"):
        if registers[each] // 3600 or name != "meter-1":
            carried[each] = registers[each] // 3600 * 3600
    if name == "meter-1":
        carried |= {"voltage_mv": registers["voltage_mv"] // 10 * 10, "current_ma": registers["current_ma"]}
    return carried


def check(name: str, readings: Sequence[Measurement]) -> None:
    """Every reading is a sample as it was reckoned, in their order; how many polls a sample lasts nobody knows."""
    samples, at, most = Reckoned(NAMES.index(name)), 0, 20_000
    for reading in readings:
        registers = dict(reading.registers)
        charge = registers.pop("soc_permille", None)
        while as_carried(name, samples[at]) != registers:
            at += 1
            assert at < most, f"{name}: no sample is {registers}"
        # it stands in another block, which is read after the others
        later = next((n for n in range(at, most) if samples[n].get("soc_permille") == charge), None)
        assert later is not None, f"{name}: no sample has a charge of {charge}"
    assert at or name == "battery-3", f"{name}: always the same sample"


@pytest.mark.parametrize("units", [100, 2])  # behind one endpoint, and behind three
async def test_readings_of_every_kind_are_in_the_journal_exactly(tmp_path: Path, units: int) -> None:
    simulator = make_simulator({"port": free_ports(3), "units": units}, tmp_path, devices(), plan(), "a")
    credentials = [simulator.credential(number) for number in range(5)]
    async with gateway(tmp_path / "gw", "modbus", credentials) as found:
        async with living(simulator, adapter(simulator), found):
            for credential, name in zip(credentials, NAMES, strict=True):
                several = 1 if name == "battery-3" else 3  # it idles
                await found.until(
                    credential,
                    lambda readings, several=several: len(readings) >= COUNT and len(
                        {frozenset(m.registers.items()) for m in readings}) >= several,
                    f"readings of {name}",
                )  # fmt: skip
        for credential, name in zip(credentials, NAMES, strict=True):
            check(name, await found.readings(credential))
        assert await found.journal.letters() == []


async def test_commands_are_obeyed_and_confirmed(tmp_path: Path) -> None:
    start = now_ms()
    when = Plan(start, start, interval_s=0.2)
    simulator = make_simulator({"port": free_port()}, tmp_path, devices(start_ms=start), when, "a")
    credentials = [simulator.credential(number) for number in range(5)]
    meter, pv, battery, charger, pump = credentials
    async with gateway(tmp_path / "gw", "modbus", credentials) as found:
        target = adapter(simulator)
        async with living(simulator, target, found):
            for order in (
                command("set_power", battery, start, power_w=120),
                command("limit_power", battery, start, min_power_w=-60, max_power_w=3_000),
                command("set_power", charger, start, power_w=2_000),
                command("set_power", pv, start, power_w=0),
                command("limit_power", pv, start, min_power_w=0, max_power_w=0),
                command("switch", pump, start, on=0),
            ):
                assert await told(target, order) is CommandState.ACKED, order
                await found.until(order.credential, shown(order), f"the confirmation of {order.name}")
            for order in (
                command("set_power", battery, start, power_w=3_001),  # more than it can
                command("set_power", pump, start, power_w=500),  # it has no such model
                command("limit_power", charger, start, min_power_w=0, max_power_w=4_200),
            ):
                assert await told(target, order) is CommandState.FAILED, order
            with pytest.raises(ValueError, match="takes no command"):
                await told(target, command("switch", meter, start, on=0))
            simulator.devices[2].simulator.fault = "refuses"
            assert await told(target, command("set_power", battery, start, power_w=60)) is CommandState.FAILED
            assert simulator.stats.commands >= 6


def test_a_store_obeys_with_ramp_and_state_of_charge_and_its_timer_ends_it() -> None:
    wall = [0]
    (simulator,) = devices(3)[2:]
    device = SunSpecDevice(simulator, "S", Plan(T0, 0, wall=lambda: wall[0]))
    home = device.layout.registers.index(704) + BASE

    def write(name: str, value: int) -> str | None:
        each = points(704)[name]
        data = value.to_bytes(2 * each.size, "big", signed=value < 0)
        values = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        return device.write(home + each.offset, values)

    def after(seconds: int) -> tuple[int, int]:
        wall[0] = seconds * 1000
        device.measure(T0 + seconds * 1000)
        power_w, charge = device.layout.get(701, "W"), device.layout.get(713, "SoC")
        assert power_w is not None and charge is not None
        return -power_w, charge

    assert after(10) == (0, 500)
    for name, value in (("WSetMod", 1), ("WSet", -1_500), ("WSetRvrtTms", 3_600)):
        assert write(name, value) is None
    assert after(20) == (0, 500), "it is not switched on"
    assert write("WSetEna", 1) is None
    assert after(30)[0] == 600 and after(40)[0] == 1_200 and after(50)[0] == 1_500, "60 W a second"
    charging, charge = after(3_000)
    assert charging == 1_500 and charge == pytest.approx(500 + 1_500 * 0.95 * 2_970 / 36_000, abs=2)
    assert write("WSet", -3_001) == "value" and device.layout.get(704, "WSet") == -1_500
    assert write("WSet", 600) is None and after(3_100)[0] == -600, "a new set point counts at once"
    assert after(3_100 + 3_600)[0] == 0 and device.layout.get(704, "WSetEna") == 0, "the timer"
    assert write("WSetEna", 1) is None and after(6_800)[0] == -600
    assert write("WSetEna", 0) is None and after(6_900)[0] == 0, "switched off"
    # two functions: when one ends the other one counts again
    assert write("WSetEna", 1) is None
    assert write("WMaxLimPct", 1_000) is None and write("WMaxLimPctEna", 1) is None  # 300 W of 3,000
    assert after(7_000)[0] == 0, "the limit is the newest: by itself it idles"
    assert write("WMaxLimPctEna", 0) is None and after(7_100)[0] == -600
    simulator.fault = "deaf"
    assert write("WSetEna", 1) == "deaf"


def test_what_is_no_writable_point_is_not_written() -> None:
    for number, device in enumerate(devices()):
        made = SunSpecDevice(device, "S", Plan(T0, 0, wall=lambda: 0))
        before = list(made.layout.registers)
        for address in (0, BASE - 1, BASE, BASE + 2, BASE + 60, BASE + len(before) - 1, BASE + len(before), 65_535):
            assert made.write(address, [1]) == "address"
        assert made.write(BASE, [0] * len(before)) == "address"
        assert made.layout.registers == before, number


def test_the_same_seed_gives_the_same_registers() -> None:
    def registers(seed: str) -> list[list[int]]:
        made = [
            SunSpecDevice(each, serial_of(seed, each.name), Plan(T0, 0, wall=lambda: 0)) for each in devices(9, seed)
        ]
        images = []
        for at in range(T0 + 10_000, T0 + 130_000, 10_000):
            for device in made:
                device.measure(at)
                images.append(list(device.layout.registers))
        return images

    assert registers("a") == registers("a") != registers("b")


async def test_discovery_finds_them(tmp_path: Path) -> None:
    simulator = make_simulator({"port": free_port()}, tmp_path, devices(), plan(), "a")
    section = {"devices": simulator.adapter_section()}
    first = {"meter-1": section["devices"].pop("meter-1")}
    endpoint = first["meter-1"]["endpoint"]
    task = asyncio.create_task(simulator.run())
    try:
        await until(lambda: task.done() or simulator.started.is_set(), PATIENCE_S, "the servers")
        scan = [{"endpoint": endpoint, "units": [1, 2, 3, 4, 5, 6]}]
        config = ModbusConfig.from_section("plant", {"devices": first, "scan": scan, "timeout_s": 10.0})
        target, sink = ModbusAdapter(config), RecordingSink()
        async with running(target, sink, connect_s=PATIENCE_S):
            found = [(credential, survey.model) async for credential, survey in target.look_around()]
        kinds = ("pv", "battery", "ev_charger", "heat_pump")
        assert found == [(f"{endpoint}/{unit}", f"simulated {kind}") for unit, kind in enumerate(kinds, 2)]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    port = free_port()
    first = make_simulator({"port": port}, tmp_path, devices(1), plan(), "a")
    task = asyncio.create_task(first.run())
    try:
        await until(lambda: task.done() or first.started.is_set(), PATIENCE_S, "the server")
        with pytest.raises(ConnectionError, match=f"{port} cannot be used"):
            await make_simulator({"port": port}, tmp_path, devices(1), plan(), "a").run()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(ValueError, match=r"^port: 5 devices take the ports up to 65538"):
        make_simulator({"port": 65_534, "units": 1}, tmp_path, devices(), plan(), "a")
