"""The calendar and the market clock."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.contracts import MemoryContext
from support.network import Network, plain_days
from support.refusals import refused

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_of


@pytest.fixture
def net() -> Network:
    return Network.start(days=0)


def days(first: str, count: int, **change: Any) -> list[dict[str, Any]]:
    return [day.model_dump() | change for day in plain_days(first, count)]


def context(net: Network) -> MemoryContext:
    return MemoryContext(net.ledger, "0" * 64, net.ledger.now, net.creators["dso"], {})


def test_days_are_published_once_and_stay(net: Network) -> None:
    net.call(net.operator, "calendar.publish", days=days("2016-05-19", 2))
    net.call(net.operator, "calendar.publish", days=days("2016-05-21", 1))
    assert [day["date"] for day in net.ask("calendar.days")] == ["2016-05-19", "2016-05-20", "2016-05-21"]
    assert [day["date"] for day in net.ask("calendar.days", first="2016-05-20", last="2016-05-20")] == ["2016-05-20"]
    for again in ("2016-05-21", "2016-05-18", "2016-05-19"):
        with refused("calendar_published", "days.0"):
            net.call(net.operator, "calendar.publish", days=days(again, 1))


def test_gaps_and_overlaps(net: Network) -> None:
    net.call(net.operator, "calendar.publish", days=days("2016-05-19", 1))
    with refused("calendar_gap", "days.0"):
        net.call(net.operator, "calendar.publish", days=days("2016-05-21", 1))
    first, second = days("2016-05-20", 2)
    with refused("calendar_gap", "days.1"):
        net.call(net.operator, "calendar.publish", days=[first, second | {"start": second["start"] + 1}])
    with refused("calendar_gap", "days.1"):
        net.call(net.operator, "calendar.publish", days=[first | {"isps": 92}, second])


def test_daylight_saving_days(net: Network) -> None:
    """29 to 31 October 2016: 30 October has 100 ISPs."""
    first, change, after = days("2016-10-29", 3)
    change["isps"] = 100
    after["start"] += 3_600_000
    net.call(net.operator, "calendar.publish", days=[first, change, after])
    day = calendar.day(context(net), "2016-10-30")
    assert day.bounds(100)[1] == day.end == after["start"]


def test_only_the_market_operator_publishes(net: Network) -> None:
    with refused("role"):
        net.call(net.actor("dso"), "calendar.publish", days=days("2016-05-19", 1))
    with refused("role"):
        net.call(net.actor("market_operator", markets=["local"]), "calendar.publish", days=days("2016-05-19", 1))
    net.call(net.actor("market_operator"), "calendar.publish", days=days("2016-05-19", 1))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"date": "2016-02-30"}, "days.0"),
        ({"date": "2016-05-20"}, "days.0.start"),
        ({"start": -1}, "days.0.start"),
        ({"isps": 0}, "days.0.isps"),
        ({"isp_seconds": "900"}, "days.0.isp_seconds"),
        ({"v": 2}, "days.0.v"),
    ],
)
def test_bad_days(net: Network, change: dict[str, Any], field: str) -> None:
    item = days("2016-05-18", 1)[0] | change
    with refused("invalid_argument", field):
        net.call(net.operator, "calendar.publish", days=[item])


def test_no_days(net: Network) -> None:
    with refused("invalid_argument", "days"):
        net.call(net.operator, "calendar.publish", days=[])


def test_missing_day_is_refused_by_code(net: Network) -> None:
    with refused("calendar", "date"):
        calendar.day(context(net), "2016-05-19")
    with refused("calendar"):
        calendar.today(context(net))


def test_the_day_of_an_instant(net: Network) -> None:
    net.call(net.operator, "calendar.publish", days=days("2016-05-19", 2))
    ctx = context(net)
    day = calendar.day(ctx, "2016-05-20")
    assert calendar.date_at(ctx, day.start).date == "2016-05-20"
    assert calendar.date_at(ctx, day.start - 1).date == "2016-05-19"
    assert calendar.date_at(ctx, day.end - 1).date == "2016-05-20"
    assert calendar.today(ctx).date == "2016-05-19"
    for outside in (day.end, -(2**53), 2**53):
        with refused("calendar"):
            calendar.date_at(ctx, outside)


@given(
    wall=st.integers(0, 2**42),
    later=st.integers(0, 2**40),
    num=st.integers(1, 10_000),
    den=st.integers(1, 10_000),
)
def test_the_market_clock_never_runs_backwards(wall: int, later: int, num: int, den: int) -> None:
    network = {"clock": {"wall_ms": 1_700_000_000_000, "market_ms": 5, "rate_num": num, "rate_den": den}}
    assert market_of(network, wall) <= market_of(network, wall + later)
    assert market_of(network, 1_700_000_000_000) == 5
    assert market_of(network, 1_700_000_000_000 + den) == 5 + num
