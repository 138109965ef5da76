"""Orders to commands: proportional, within ratings, merged over equal intervals, the same every time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay.dispatch import DispatchOrder, NoCapacity, OrderedIsp, ProportionalPlan
from flexrelay.market.fleet import Fleet, Unit
from flexrelay_schemas.intervals import CalendarDay

FLEET = Fleet(
    (Unit("c1", "did:1", 5_000, 10_000), Unit("c2", "did:2", 5_000, 20_000), Unit("c3", "did:3", 9_000, 30_000))
)
CREDENTIALS = {"did:1": "one", "did:2": "two", "did:3": "three"}


def order(*powers: int, start: int = 0) -> DispatchOrder:
    isps = tuple(OrderedIsp(n, start + (n - 1) * 900, start + n * 900, power) for n, power in enumerate(powers, 1))
    return DispatchOrder("o", "a", isps)


def plan(**options: object) -> ProportionalPlan:
    return ProportionalPlan(FLEET, CREDENTIALS, wall_of=lambda market: market + 7, **options)  # type: ignore[arg-type]


def test_power_is_split_by_capacity_and_equal_intervals_are_one_command() -> None:
    commands = plan().commands(order(6_000, 6_000, 0, -3_000))
    shown = [
        (c.credential, c.parameters["power_w"], c.parameters["from_ms"], c.parameters["until_ms"]) for c in commands
    ]
    assert shown == [
        ("one", 1_000, 0, 1_800),
        ("one", -500, 2_700, 3_600),
        ("two", 2_000, 0, 1_800),
        ("two", -1_000, 2_700, 3_600),
        ("three", 3_000, 0, 1_800),
        ("three", -1_500, 2_700, 3_600),
    ]
    assert [c.expires_at for c in commands] == [1_807, 3_607] * 3
    assert len({c.command_id("o") for c in commands}) == 6
    assert [c.command_id("o") for c in commands] == [
        c.command_id("o") for c in plan().commands(order(6_000, 6_000, 0, -3_000))
    ]


def test_who_is_not_available_gets_nothing_and_nobody_is_an_error() -> None:
    commands = plan(available=lambda did: did != "did:2").commands(order(4_000))
    assert [(c.did, c.parameters["power_w"]) for c in commands] == [("did:1", 1_000), ("did:3", 3_000)]
    with pytest.raises(NoCapacity, match="none of 3"):
        plan(available=lambda did: False).commands(order(1))


@given(
    st.lists(st.integers(-40_000, 40_000), min_size=1, max_size=8),
    st.sets(st.sampled_from(sorted(CREDENTIALS)), min_size=1),
)
def test_ratings_hold_and_what_fits_is_met_exactly(powers: list[int], available: set[str]) -> None:
    wanted = order(*powers)
    commands = plan(available=lambda did: did in available).commands(wanted)
    units = tuple(unit for unit in FLEET.units if unit.did in available)
    most = Fleet(units).rated_w
    ratings = {unit.did: unit.rated_w for unit in units}
    for item in wanted.isps:
        active = [c for c in commands if c.parameters["from_ms"] <= item.from_ms < c.parameters["until_ms"]]
        assert sum(c.parameters["power_w"] for c in active) == max(-most, min(most, item.power_w))
        assert len({c.did for c in active}) == len(active)
        assert all(abs(c.parameters["power_w"]) <= ratings[c.did] for c in active)


def test_intervals_with_a_gap_between_them_are_two_commands() -> None:
    isps = (OrderedIsp(1, 0, 900, 600), OrderedIsp(3, 1_800, 2_700, 600))
    assert len([c for c in plan().commands(DispatchOrder("o", "a", isps)) if c.did == "did:1"]) == 2


def test_an_order_is_read_from_its_event() -> None:
    day = CalendarDay(date="2016-05-20", start=1_000_000, isps=96, isp_seconds=900, working=True)
    payload = {
        "order_id": "o",
        "aggregator": "a",
        "date": "2016-05-20",
        "isps": [{"isp": 2, "power_w": 5, "room_w": 0}],
    }
    read = DispatchOrder.from_event(payload, day)
    assert read.isps == (OrderedIsp(2, 1_900_000, 2_800_000, 5),)
    with pytest.raises(ValueError, match="calendar day"):
        DispatchOrder.from_event({**payload, "date": "2016-05-21"}, day)
