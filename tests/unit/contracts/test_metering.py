"""What an order is settled over does not change with the master data, which one of its parties writes."""

from collections.abc import Callable
from typing import Any

import pytest
from support.contracts import Party
from support.market import DATE, ISP_S, Market, option

from flexrelay_contracts.refusal import Refused

KWH = 3_600_000


@pytest.fixture
def market() -> Market:
    return Market.start()


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)


def record(market: Market, by: Party, kind: str, connection: str, **data: Any) -> None:
    named = {"kind": kind, "connection": connection, "valid_from": DATE, "valid_to": "", "data": data}
    market.net.call(by, "masterdata.record", **named, supersede=True)


def meters(market: Market, order: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = market.net.ask("congestion.order_metering", order_id=order["order_id"])
    return found


def meter_of(market: Market, connection: str) -> Party:
    meter = market.connections[connection].meter
    assert meter is not None
    return meter


def test_an_order_holds_its_aggregators_connections_and_their_meters(market: Market) -> None:
    market.net.connection("a3", dso=market.dso, owner=market.agg_a, aggregator=market.agg_a)
    market.net.connection("far", dso=market.dso, owner=market.agg_a, aggregator=market.agg_a, congestion_point="cp-2")
    first, second = market.order()
    assert meters(market, first) == {"a1": meter_of(market, "a1").did, "a2": meter_of(market, "a2").did, "a3": ""}
    assert meters(market, second) == {"b1": meter_of(market, "b1").did, "b2": meter_of(market, "b2").did}
    refused(
        "unknown_order", "order_id", lambda: market.net.ask("congestion.order_metering", order_id="order-x")
    )  # fmt: skip


@pytest.mark.parametrize("late", [False, True], ids=["before delivery", "after delivery"])
def test_a_mandate_that_goes_to_another_changes_no_settlement(market: Market, late: bool) -> None:
    order, _ = market.order()
    market.deliver(order)
    if late:
        market.net.to(market.day.end)
    record(market, market.dso, "mandate", "a2", aggregator=market.agg_b.did)
    without = market.proposal(order)
    without["detail"]["connections"] = without["detail"]["connections"][:1]
    refused("connections", "detail.connections", lambda: market.send_proposal(without))
    market.settle(order)
    assert market.money(market.agg_a) == 1_000_000_000 + 500_000


def test_a_connection_that_came_later_is_in_no_settlement(market: Market) -> None:
    order, _ = market.order()
    market.net.connection("a3", dso=market.dso, owner=market.agg_a, meter=True, aggregator=market.agg_a)
    market.of["a3"] = market.agg_a
    refused("connections", "detail.connections", lambda: market.propose(order))
    del market.of["a3"]
    market.propose(order)


def test_the_buyer_cannot_change_whose_signatures_count(market: Market) -> None:
    """The DSO says after the delivery that another meter, of its own, was behind the connection."""
    meter, theirs = meter_of(market, "b1"), market.net.device(market.dso)
    _, order = market.order()
    market.deliver(order)
    market.net.to(market.day.end)
    ours = market.meter_proofs("agg-b", "b1", 49, 10_000 * ISP_S)
    record(market, market.dso, "meter", "b1", device=theirs.did)
    start, end = market.bounds(49)
    forged = market.anchor(
        "dso", theirs, {start: market.signed(theirs, start, 0), end: market.signed(theirs, end, KWH)}
    )  # fmt: skip
    market.net.to(market.net.market_ms + 1000)
    settlement = market.propose(order, b1={49: KWH})
    market.open(market.agg_b, settlement, 49, "b1", 10_000 * ISP_S)
    market.show(market.agg_b, ours)
    market.show(market.dso, forged)
    verdict = market.resolve(market.agg_b)
    assert verdict["verdict"] == "challenger"
    assert verdict["findings"]["respondent"]["code"] == "other_meter"
    assert meters(market, order)["b1"] == meter.did


def test_an_auction_without_orders_pins_nothing(market: Market) -> None:
    market.request()
    market.close()
    assert market.clear() == []


def test_an_order_is_settled_over_what_it_sold_wherever_the_mandates_went(market: Market) -> None:
    """The offers stand, and all of A's connections are given to B before the clearing: A's order is measured where its
    option said, or nobody could ever settle it; and what A sold there does not deliver B's order."""
    market.nominate(market.agg_a)
    market.nominate(market.agg_b)
    market.request()
    both = {"a1": [6_000, 6_000, 0], "a2": [4_000, 4_000, 0]}
    market.offer(market.agg_a, option(100_000, [10_000, 10_000, 0], **both))
    market.offer(market.agg_b, option(120_000, [10_000, 10_000, 0], b1=[10_000, 10_000, 0]))
    market.close()
    for name in ("a1", "a2"):
        record(market, market.dso, "mandate", name, aggregator=market.agg_b.did)
    first, second = market.clear()
    assert sorted(meters(market, first)) == ["a1", "a2"]
    assert sorted(meters(market, second)) == ["b1", "b2"]
    assert meters(market, first)["a1"] == meter_of(market, "a1").did
    market.deliver(first)
    market.settle(first)
    market.settle(second)
    assert market.money(market.agg_a) == 1_000_000_000 + 500_000
    assert market.money(market.agg_b) == 1_000_000_000 - 2 * 10_000 * 150_000 // 4_000
    assert market.held() == {}


def test_a_connection_that_left_the_congestion_point_is_still_measured(market: Market) -> None:
    market.nominate(market.agg_a)
    market.request()
    market.offer(market.agg_a, option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0]))
    market.close()
    place = {"congestion_point": "cp-2", "dso": market.dso.did, "owner": market.agg_a.did}
    for name in ("a1", "a2"):
        record(market, market.dso, "connection", name, **place)
    (order,) = market.clear()
    assert meters(market, order) == {"a1": meter_of(market, "a1").did}


def test_what_two_orders_have_sold_is_measured_for_both(market: Market) -> None:
    """B gets the mandate after A's offer and sells the rest of a1: neither order stays without a connection."""
    market.nominate(market.agg_a)
    market.nominate(market.agg_b)
    market.request()
    market.offer(market.agg_a, option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0]))
    record(market, market.dso, "mandate", "a1", aggregator=market.agg_b.did)
    market.offer(market.agg_b, option(120_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0]))
    market.close()
    first, second = market.clear()
    assert sorted(meters(market, first)) == ["a1", "a2"]
    assert sorted(meters(market, second)) == ["a1", "b1", "b2"]
