"""Forecast, need and the fleet's arithmetic: nothing is lost in splitting, no battery gets more than it can do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay.market.fleet import Fleet, Unit, spread
from flexrelay.market.forecast import feed_in_room, greatest_feed_in, withdrawal_need

units = st.lists(
    st.tuples(st.integers(1_000, 100_000), st.integers(3_600_000, 900_000_000)), min_size=1, max_size=6
).map(lambda rows: Fleet(tuple(Unit(f"c{i}", f"did{i}", w, j) for i, (w, j) in enumerate(rows))))


def test_forecast_and_need() -> None:
    assert greatest_feed_in([[1, -5, 3], [2, -1, -9]]) == (1, -5, -9)
    assert withdrawal_need([-150_050, -100, 40], 144_000, 100) == (6_100, 0, 0)
    assert feed_in_room([-150_000, -4, 40], 144_000) == (0, 143_996, 144_040)
    with pytest.raises(ValueError, match="at least one"):
        greatest_feed_in([])
    with pytest.raises(ValueError, match="shorter"):
        greatest_feed_in([[1, 2], [1]])


@given(units, st.integers(-500_000, 500_000))
def test_a_split_sums_exactly_and_has_one_sign(fleet: Fleet, power: int) -> None:
    parts = fleet.split(power)
    assert sum(parts) == power
    assert all(part * power >= 0 for part in parts)


@given(units, st.lists(st.integers(0, 200_000), min_size=1, max_size=96), st.integers(0, 1000))
def test_a_share_stays_within_need_power_and_capacity(fleet: Fleet, need: list[int], permille: int) -> None:
    profile = fleet.share_of(need, permille, 900, 100)
    assert sum(profile) * 900 <= fleet.capacity_j
    for power, wanted in zip(profile, need, strict=True):
        assert 0 <= power <= wanted * permille // 1000
        assert power % 100 == 0
        for part, unit in zip(fleet.split(power), fleet.units, strict=True):
            assert part <= unit.rated_w + 1


@given(st.integers(0, 10**9), st.lists(st.integers(1, 96), min_size=1, max_size=20, unique=True))
def test_spread_gives_the_energy(energy: int, isps: list[int]) -> None:
    plan = spread(energy, isps, 900)
    assert set(plan) == set(isps)
    assert 0 <= energy - sum(plan.values()) * 900 < 900
