"""Simulated devices: physics in whole numbers, obedience with ramps and states of charge, the same by seed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_sdk.simulation import (
    Battery,
    DeviceSimulator,
    EvCharger,
    HeatPump,
    Meter,
    Model,
    Plan,
    Profile,
    PvInverter,
    Series,
    make_devices,
)

T0 = 1_700_000_000_000
HOUR = 3_600_000


def window(until_ms: int = T0 + HOUR, from_ms: int = T0, **values: int) -> dict[str, int]:
    return {"from_ms": from_ms, "until_ms": until_ms, **values}


def test_a_meter_counts_what_its_series_says_exactly() -> None:
    meter = Meter(T0, load=Series((1000, -400, 0), 900, T0))
    for _ in range(2):  # going back, or asking twice, is nothing
        meter.advance(T0 + 3 * 900_000)
    assert meter.registers() == {
        "import_j": 900_000,
        "export_j": 360_000,
        "power_w": 0,
        "voltage_mv": 230_000,
        "current_ma": 0,
    }
    meter.advance(T0 + 4 * 900_000)  # the series begins anew
    assert meter.registers()["import_j"] == 1_800_000
    assert meter.registers()["current_ma"] == 1000 * 1_000_000 // 229_000


def test_an_inverter_gives_what_the_sun_gives_and_is_curtailed() -> None:
    roof = PvInverter(T0, rated_w=5_000, sun=Series((3_000, 8_000), 900, T0))
    roof.advance(T0 + 10_000)
    assert roof.power_w == -3_000
    roof.order("limit_power", window(T0 + 20_000, min_power_w=-1_000, max_power_w=0))
    roof.advance(T0 + 20_000)
    assert roof.power_w == -1_000
    roof.advance(T0 + 900_000 + 5_000)  # the limit is over; the rating holds
    assert roof.power_w == -5_000
    roof.order("set_power", window(power_w=-5_000))
    roof.advance(T0 + 1_800_000 + 5_000)
    assert roof.power_w == -3_000, "a command makes no sun"


def test_a_battery_ramps_and_its_state_of_charge_is_its_energy() -> None:
    battery = Battery(T0, rated_w=4_000, capacity_wh=1_000, soc_permille=500, efficiency_permille=900, ramp_w=1_000)
    battery.order("set_power", window(power_w=4_000))
    powers = []
    for second in range(1, 6):
        battery.advance(T0 + second * 1000)
        powers.append(battery.power_w)
    assert powers == [1_000, 2_000, 3_000, 4_000, 4_000]
    battery.advance(T0 + HOUR)
    shown = battery.registers()
    assert 998 <= shown["soc_permille"] <= 1000 and shown["power_w"] < 4_000
    assert abs(shown["import_j"] * 900 // 1000 - 500 * 3600) <= 4_000
    battery.order("set_power", window(T0 + 3 * HOUR, T0 + HOUR, power_w=-4_000))
    battery.advance(T0 + 3 * HOUR)
    shown = battery.registers()
    assert shown["soc_permille"] == 0 and shown["power_w"] == 0
    assert 0 <= 1_000 * 3600 - shown["export_j"] <= 8_000


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-6_000, 6_000), st.integers(1, 900)), max_size=6), st.integers(0, 1000))
def test_a_battery_makes_no_energy(orders: list[tuple[int, int]], soc: int) -> None:
    battery = Battery(T0, rated_w=5_000, capacity_wh=500, soc_permille=soc, efficiency_permille=950)
    now = T0
    for power_w, seconds in orders:
        if not battery.refusal("set_power", window(power_w=power_w)):
            battery.order("set_power", window(now + seconds * 1000, now, power_w=power_w))
        now += seconds * 1000
        battery.advance(now)
        shown = battery.registers()
        assert 0 <= shown["soc_permille"] <= 1000
        stored = 500 * 3600 * soc + shown["import_j"] * 950 - shown["export_j"] * 1000
        assert shown["soc_permille"] == stored * 1000 // (500 * 3600 * 1000)


def test_a_charger_charges_while_a_car_is_there() -> None:
    charger = EvCharger(
        T0, rated_w=11_000, capacity_wh=2_000, arrival_permille=500, presence=Series((0, 1, 0), 900, T0)
    )
    charger.advance(T0 + 900_000)
    assert charger.registers() == {"import_j": 0, "export_j": 0, "power_w": 0, "soc_permille": 0}
    charger.order("limit_power", window(T0 + 930_000, min_power_w=0, max_power_w=1_000))
    charger.advance(T0 + 930_000)
    assert charger.power_w == 0, "a car charges with 6 A or not at all"
    charger.advance(T0 + 1_000_000)
    assert charger.power_w == 11_000
    charger.advance(T0 + 1_800_000)
    assert charger.registers()["soc_permille"] == 1000 and charger.energy.import_j == 1_000 * 3600
    charger.advance(T0 + 1_810_000)
    assert charger.registers()["soc_permille"] == 0 and charger.power_w == 0


def test_a_heat_pump_keeps_the_house_warm_and_never_lets_it_freeze() -> None:
    pump = HeatPump(T0, outdoor=Series((-5_000,), 900, T0))
    seen = []
    for minute in range(24 * 60):
        pump.advance(T0 + minute * 60_000)
        seen.append(pump.indoor_mc)
    assert min(seen) >= 19_400 and max(seen) <= 21_100
    day = pump.now_ms
    pump.order("switch", window(day + 100 * HOUR, day, on=0))
    pump.advance(day + HOUR)
    assert pump.power_w == 0
    pump.advance(day + 100 * HOUR)
    assert 14_900 <= pump.indoor_mc <= 15_200
    assert pump.refusal("set_power", window(power_w=1))


def test_a_command_is_done_once_and_answered_again() -> None:
    device = DeviceSimulator("battery-1", Battery(T0))
    told = window(power_w=2_000)
    first = device.obey("c1", "set_power", told)
    assert first is not None and first.state == "acked"
    assert device.obey("c1", "set_power", window(power_w=-2_000)) == first
    assert device.sample(T0 + 10_000).registers["power_w"] == 2_000
    refused = device.obey("c2", "set_power", window(power_w=9_999))
    assert refused is not None and refused.state == "failed" and "-5000 to 5000" in refused.detail
    for bad in ({"power_w": 1}, window(power_w=1, more=2), window(T0 - 1, power_w=1)):
        answer = device.obey(f"c{bad}", "set_power", bad)
        assert answer is not None and answer.state == "failed" and answer.detail
    assert device.obey("c3", "set_power", told, expired=True) is None
    device.fault = "deaf"
    assert device.obey("c4", "set_power", told) is None
    device.fault = "silent"
    assert device.obey("c5", "set_power", window(power_w=-1_000)).state == "acked"  # type: ignore[union-attr]  # said so
    assert device.sample(T0 + 20_000).registers["power_w"] == 2_000


CSV = """at_s,home_meter,roof_pv,cabin_heat_pump,garage_ev_charger
0,500,0,-2000,0
900,700,900,-1500,1
1800,650,1500,0,1
"""


def test_a_csv_profile_makes_devices_that_repeat_by_seed(tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text(CSV)
    profile = Profile.read(file)
    assert [spec.kind for spec in profile.devices] == ["meter", "pv", "heat_pump", "ev_charger"]

    def day(seed: str, steps: int) -> list[dict[str, int]]:
        devices = make_devices(profile, 12, seed, T0)
        for step in range(1, steps):  # how often one asks changes nothing
            for device in devices:
                device.sample(T0 + 2_700_000 * step // steps)
        return [device.sample(T0 + 2_700_000).registers for device in devices]

    assert day("a", 1) == day("a", 7)
    assert day("a", 1) != day("b", 1)
    names = [device.name for device in make_devices(profile, 6, "a", T0)]
    assert names == ["meter-1", "pv-2", "heat-pump-3", "ev-charger-4", "meter-5", "pv-6"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("time,home_meter\n0,1\n1,2\n", "begins with at_s"),
        ("at_s,home_meter\n0,1\n", "two rows"),
        ("at_s,home_meter\n0,1\n900,2.5\n", "whole numbers"),
        ("at_s,home_meter\n0,1\n900,2,3\n", "2 cells"),
        ("at_s,home_meter\n0,1\n900,2\n1000,3\n", "equal steps"),
        ("at_s,home\n0,1\n900,2\n", "ends with one of"),
    ],
)
def test_a_bad_csv_profile_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        Profile.read(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ({"kind": "meter", "series": "no"}, "no series 'no'"),
        ({"kind": "battery", "parameters": {"rated": 1}}, "no parameter rated"),
        ({"kind": "battery", "parameters": {"_now_ms": 1}}, "no parameter _now_ms"),
        ({"kind": "battery", "parameters": {"capacity_wh": 0}}, "needs a capacity"),
        ({"kind": "heat_pump", "series": "home", "parameters": {"low_mc": 1}}, "frost_mc"),
        ({"kind": "fridge", "series": "home"}, "Input should be"),
    ],
)
def test_a_bad_json_profile_says_what_is_wrong(tmp_path: Path, device: dict[str, Any], says: str) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"step_s": 900, "series": {"home": [1, 2]}, "devices": [device]}))
    with pytest.raises(ValueError, match=says):
        make_devices(Profile.read(file), 1, "s", T0)


async def test_readings_are_spread_over_the_interval_and_caught_up() -> None:
    plan = Plan(T0, time.time_ns() // 1_000_000, interval_s=60, rate=600)
    due = plan.due(1, 4)
    first = await anext(due)
    assert first == T0 + 75_000 and plan.now() >= first
    assert await anext(due) == first + 60_000
    behind = Plan(T0, time.time_ns() // 1_000_000 - 36_000_000, interval_s=3600)
    caught = behind.due(0, 1)
    began = time.monotonic()
    assert [await anext(caught) for _ in range(5)] == [T0 + 3_600_000 * n for n in range(1, 6)]
    assert time.monotonic() - began < 60


KINDS: list[tuple[type[Model], dict[str, Any]]] = [
    (Meter, {"load": (400, -200, 0, 0)}),
    (PvInverter, {"sun": (0, 3_000, 9_000), "ramp_w": 700, "rated_w": 5_000}),
    (Battery, {"capacity_wh": 300, "ramp_w": 1_000}),
    (EvCharger, {"presence": (0, 1, 1, 0), "capacity_wh": 900}),
    (HeatPump, {"outdoor": (-8_000, 4_000), "capacity_j_per_k": 400_000}),
]


@settings(max_examples=80)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(
            st.sampled_from(["set_power", "limit_power", "switch"]),
            st.integers(-5_000, 11_000),
            st.integers(0, 400_000),
            st.integers(1, 300_000),
        ),
        max_size=4,
    ),
    st.lists(st.integers(1, 200_000), min_size=1, max_size=5),
)
def test_a_stride_is_as_its_ticks(
    kind: tuple[type[Model], dict[str, Any]], told: list[tuple[str, int, int, int]], pauses: list[int]
) -> None:
    made, values = kind
    parameters = {name: Series(value, 97, T0) if isinstance(value, tuple) else value for name, value in values.items()}
    striding, ticking = made(T0, **parameters), made(T0, **parameters)
    ticking.still = lambda: False  # type: ignore[method-assign]  # every tick by itself
    now = T0
    for number, pause in enumerate(pauses):
        for name, power_w, from_ms, lasts_ms in told[number : number + 1]:
            window_ = window(now + from_ms + lasts_ms, now + from_ms)
            extra = {
                "set_power": {"power_w": power_w},
                "limit_power": {"min_power_w": min(0, power_w), "max_power_w": max(0, power_w)},
                "switch": {"on": power_w % 2},
            }[name]
            for model in (striding, ticking):
                if not model.refusal(name, {**window_, **extra}):
                    model.order(name, {**window_, **extra})
        now += pause
        striding.advance(now)
        ticking.advance(now)
        assert striding.registers() == ticking.registers() and striding.now_ms == ticking.now_ms
