"""Plants: energy is exactly power × time, and a battery stays within what it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay.demo.plants import BatteryPlant, SeriesPlant, SetPoint

ISP_MS = 900_000


@given(st.lists(st.integers(-200_000, 200_000), min_size=1, max_size=200))
def test_series_registers_only_grow_and_their_difference_is_the_power(series: list[int]) -> None:
    plant = SeriesPlant(series)
    for boundary, power_w in enumerate(series, start=1):
        before, after = plant.registers(boundary - 1), plant.registers(boundary)
        drawn, fed = after["import_j"] - before["import_j"], after["export_j"] - before["export_j"]
        assert drawn >= 0 and fed >= 0 and drawn * fed == 0
        assert drawn - fed == power_w * 900
        assert after["power_w"] == power_w


def test_series_ends_where_its_data_ends() -> None:
    with pytest.raises(IndexError):
        SeriesPlant([1, 2]).registers(3)


@given(
    st.lists(st.tuples(st.integers(-9000, 9000), st.integers(0, 20), st.integers(1, 10)), max_size=12),
    st.integers(0, 1000),
    st.integers(700, 1000),
    st.integers(100, 5000),
)
def test_battery_stays_within_rating_ramp_and_capacity(
    plan: list[tuple[int, int, int]], soc: int, efficiency: int, ramp: int
) -> None:
    battery = BatteryPlant(
        rated_w=5000,
        capacity_wh=8000,
        start_ms=0,
        soc_permille=soc,
        efficiency_permille=efficiency,
        ramp_w_per_tick=ramp,
    )
    for power_w, start, length in plan:
        battery.plan(SetPoint(power_w, start * ISP_MS, (start + length) * ISP_MS))
    stored_j = 8000 * 3600 * soc // 1000
    for boundary in range(1, 33):
        before, after = battery.registers(boundary - 1), battery.registers(boundary)
        drawn, fed = after["import_j"] - before["import_j"], after["export_j"] - before["export_j"]
        assert 0 <= drawn <= 5000 * 900 and 0 <= fed <= 5000 * 900
        assert 0 <= after["soc_permille"] <= 1000
        stored_j += drawn * efficiency // 1000 - fed
        assert abs(stored_j - after["soc_permille"] * 8000 * 3600 // 1000) <= 8000 * 3600 // 1000 + boundary


def test_battery_charges_what_it_is_told_and_then_is_full() -> None:
    battery = BatteryPlant(rated_w=4000, capacity_wh=2000, start_ms=1000, soc_permille=0)
    battery.plan(SetPoint(4000, 1000, 1000 + 4 * ISP_MS))
    assert battery.registers(1)["import_j"] == 4000 * 900
    full = battery.registers(4)
    assert (full["import_j"], full["soc_permille"]) == (2000 * 3600, 1000)
    assert battery.registers(5)["power_w"] == 0


def test_the_newest_set_point_counts_and_a_silent_battery_does_nothing() -> None:
    battery = BatteryPlant(rated_w=4000, capacity_wh=9000, start_ms=0)
    battery.plan(SetPoint(1000, 0, 2 * ISP_MS))
    battery.plan(SetPoint(-2000, ISP_MS, 2 * ISP_MS))
    assert battery.registers(1)["power_w"] == 1000
    assert battery.registers(2)["power_w"] == -2000
    battery.plan(SetPoint(1000, 2 * ISP_MS, 3 * ISP_MS))
    battery.silent = True
    assert battery.registers(3)["power_w"] == 0
