"""Who takes over the balance of an order: by the product's field, once, and always adding up to zero."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Party
from support.market import DATE, Market, available, option, requested
from support.refusals import refused


def with_brps(market: Market) -> dict[str, Party]:
    """a1 and b1 belong to north, a2 and b2 to south; the DSO has a BRP of its own."""
    brps = {name: market.net.actor("brp", org="dso") for name in ("north", "south", "grid")}
    for connection, brp in (("a1", "north"), ("a2", "south"), ("b1", "north"), ("b2", "south")):
        market.net.call(
            market.dso,
            "masterdata.record",
            kind="brp",
            connection=connection,
            valid_from="2016-05-12",
            valid_to="",
            data={"brp": brps[brp].did},
        )
    return brps


def corrected(market: Market, brp: Party) -> dict[int, int]:
    """ISP → watt-hours of the corrected position."""
    found = market.net.ask("imbalance.position", date=DATE, brp=brp.did)
    return {isp: energy // 3600 for isp, energy in enumerate(found["corrected_j"], 1) if energy}


def test_under_buyer_responsibility_the_ordered_volume_moves_to_the_buyers_brp() -> None:
    """A's order is 6 + 4 kW in ISPs 49 and 50 and 4 kW of rebound by a1 (north) in ISP 80."""
    market = Market.start(balance_responsibility="buyer")
    brps = with_brps(market)
    order, _ = market.order()
    call: dict[str, Any] = {"order_id": order["order_id"], "buyer_brp": brps["grid"].did}
    with refused("not_buyer", "order_id"):
        market.net.call(market.net.actor("dso", org="dso"), "imbalance.correct", **call)
    with refused("role", "buyer_brp"):
        market.net.call(market.dso, "imbalance.correct", order_id=order["order_id"], buyer_brp=market.agg_a.did)
    market.net.call(market.dso, "imbalance.correct", **call)
    assert corrected(market, brps["north"]) == {49: 1500, 50: 1500, 80: -1000}
    assert corrected(market, brps["south"]) == {49: 1000, 50: 1000}
    assert corrected(market, brps["grid"]) == {49: -2500, 50: -2500, 80: 1000}
    with refused("corrected", "order_id"):
        market.net.call(market.dso, "imbalance.correct", **call)
    with refused("unknown_order", "order_id"):
        market.net.call(market.dso, "imbalance.correct", order_id="nothing", buyer_brp=brps["grid"].did)


def test_under_provider_responsibility_nothing_is_corrected() -> None:
    market = Market.start()
    brps = with_brps(market)
    order, _ = market.order()
    with refused("responsibility", "order_id"):
        market.net.call(market.dso, "imbalance.correct", order_id=order["order_id"], buyer_brp=brps["grid"].did)
    assert corrected(market, brps["north"]) == {}


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12_000), st.integers(0, 8_000), st.integers(500, 16_000))
def test_corrections_add_up_to_zero_at_any_activation(first: int, second: int, need: int) -> None:
    """Percentages and whole watts leave no joule behind; the order's power is what moves."""
    market = Market.start(balance_responsibility="buyer", granularity_w=1, min_quantity_w=0, max_quantity_w=1_000_000)
    brps = with_brps(market)
    market.nominate(market.agg_a)
    market.request([requested(49, 0, need), available(80, -8_000, 0)])
    power = min(first + second, need)
    shares = {"a1": [max(power - second, 0), 0], "a2": [power - max(power - second, 0), 0]}
    market.offer(market.agg_a, option(50_000, [power, 0], isps=(49, 80), min_percent=1, **shares))
    market.close()
    (order,) = market.clear()
    market.net.call(market.dso, "imbalance.correct", order_id=order["order_id"], buyer_brp=brps["grid"].did)
    positions = {
        name: market.net.ask("imbalance.position", date=DATE, brp=brp.did)["corrected_j"] for name, brp in brps.items()
    }
    assert all(sum(column) == 0 for column in zip(*positions.values(), strict=True))
    assert -positions["grid"][48] == order["isps"][0]["power_w"] * 900
