"""The uniform double auction against brute force and its invariants."""

import hashlib
import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_contracts.rules import uniform_auction
from flexrelay_contracts.rules.orders import Order, pro_rata, tie_break
from flexrelay_contracts.rules.uniform_auction import Clearing

quantities = st.integers(0, 12)
prices = st.integers(-4, 12)


@st.composite
def books(draw: st.DrawFn) -> tuple[list[Order], list[Order]]:
    asks = draw(st.lists(st.tuples(quantities, prices), max_size=9))
    bids = draw(st.lists(st.tuples(quantities, prices), max_size=9))
    return (
        [Order(f"a{index}", *values) for index, values in enumerate(asks)],
        [Order(f"b{index}", *values) for index, values in enumerate(bids)],
    )


caps = st.none() | st.integers(0, 40)


def largest_volume(asks: list[Order], bids: list[Order]) -> int:
    """Brute force: no price lets more than min(supply, demand) trade at it."""
    best = 0
    for price in {order.price for order in asks + bids}:
        supply = sum(order.quantity for order in asks if order.price <= price)
        demand = sum(order.quantity for order in bids if order.price >= price)
        best = max(best, min(supply, demand))
    return best


def check(asks: list[Order], bids: list[Order], result: Clearing, cap: int | None) -> None:
    expected = largest_volume(asks, bids)
    assert result.volume == (expected if cap is None else min(expected, cap))
    orders = {order.id: order for order in asks + bids}
    for side, fills in ((asks, result.sold), (bids, result.bought)):
        assert sum(fill.quantity for fill in fills) == result.volume
        assert [fill.id for fill in fills] == sorted({fill.id for fill in fills})
        assert {fill.id for fill in fills} <= {order.id for order in side}
        for fill in fills:
            assert 0 < fill.quantity <= orders[fill.id].quantity
            assert fill.price == result.price
    if result.volume == 0:
        assert result.price is None
        assert result.price_range is None
        return
    assert result.price is not None
    assert result.price_range is not None
    low, high = result.price_range
    assert low <= result.price <= high
    filled = {fill.id: fill.quantity for fill in result.sold + result.bought}
    for order in asks:  # nobody trades at a loss
        assert not filled.get(order.id) or order.price <= result.price
    for order in bids:
        assert not filled.get(order.id) or order.price >= result.price
    for better in asks:  # no better order is left out for a worse one
        if filled.get(better.id, 0) < better.quantity:
            assert all(not filled.get(worse.id) for worse in asks if worse.price > better.price)
    for better in bids:
        if filled.get(better.id, 0) < better.quantity:
            assert all(not filled.get(worse.id) for worse in bids if worse.price < better.price)


@given(books(), caps)
def test_every_clearing_keeps_the_rules(book: tuple[list[Order], list[Order]], cap: int | None) -> None:
    asks, bids = book
    check(asks, bids, uniform_auction.clear("x", asks, bids, cap=cap), cap)


@given(books(), caps, st.randoms())
def test_the_order_of_arrival_does_not_matter(
    book: tuple[list[Order], list[Order]], cap: int | None, dice: random.Random
) -> None:
    asks, bids = book
    before = uniform_auction.clear("x", asks, bids, cap=cap)
    dice.shuffle(asks)
    dice.shuffle(bids)
    assert uniform_auction.clear("x", asks, bids, cap=cap) == before


@given(books())
def test_the_price_without_a_cap_clears_both_sides(book: tuple[list[Order], list[Order]]) -> None:
    """At the price, whoever is strictly inside trades in full: supply and demand agree with it."""
    asks, bids = book
    result = uniform_auction.clear("x", asks, bids)
    if result.price is None or result.price_range is None:
        return
    filled = {fill.id: fill.quantity for fill in result.sold + result.bought}
    low, high = result.price_range
    for price in range(low, high + 1):
        assert all(filled.get(ask.id, 0) == ask.quantity for ask in asks if ask.price < price)
        assert all(filled.get(bid.id, 0) == bid.quantity for bid in bids if bid.price > price)


@given(books(), caps)
def test_equal_orders_at_the_margin_differ_by_one_unit_at_most(
    book: tuple[list[Order], list[Order]], cap: int | None
) -> None:
    asks, bids = book
    result = uniform_auction.clear("x", asks, bids, cap=cap)
    filled = {fill.id: fill.quantity for fill in result.sold + result.bought}
    for side in (asks, bids):
        for one in side:
            for other in side:
                if (one.price, one.quantity) == (other.price, other.quantity):
                    assert abs(filled.get(one.id, 0) - filled.get(other.id, 0)) <= 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.data())
def test_pro_rata_is_a_quota_rule(amounts: list[int], data: st.DataObject) -> None:
    orders = [Order(f"o{index}", amount, 1) for index, amount in enumerate(amounts)]
    total = sum(amounts)
    amount = data.draw(st.integers(0, total))
    shares = pro_rata("x", orders, amount)
    assert sum(shares) == amount
    for order, share in zip(orders, shares, strict=True):
        assert order.quantity * amount // total <= share <= min(-(-order.quantity * amount // total), order.quantity)


def test_golden_margin_and_ties() -> None:
    """Worked by hand: 10 at 3 for two bids at the margin of 4 each after one better bid of 7."""
    asks = [Order("s1", 10, 3), Order("s2", 5, 9)]
    bids = [Order("d1", 7, 8), Order("d2", 4, 6), Order("d3", 4, 6), Order("d4", 1, 2)]
    result = uniform_auction.clear("x", asks, bids)
    assert result.volume == 10
    assert result.price_range == (6, 6)  # the rest of d2, d3 is the first bid not accepted
    assert result.price == 6
    shares = {fill.id: fill.quantity for fill in result.bought}
    first = min(("d2", "d3"), key=lambda order: tie_break("x", order))
    assert shares == {"d1": 7, "d2": 1 + (first == "d2"), "d3": 1 + (first == "d3")}


def test_golden_range_between_marginal_orders() -> None:
    asks = [Order("s1", 5, 10), Order("s2", 5, 17)]
    bids = [Order("d1", 5, 20), Order("d2", 5, 13)]
    result = uniform_auction.clear("", asks, bids)
    assert (result.volume, result.price_range, result.price) == (5, (13, 17), 15)


def test_floor_goes_down_for_negative_prices() -> None:
    result = uniform_auction.clear("", [Order("s", 1, -4)], [Order("d", 1, -1)])
    assert (result.price_range, result.price) == ((-4, -1), -3)


def test_a_binding_cap_keeps_the_price_between_the_last_accepted() -> None:
    """With 4 of 10 units traded both rests remain: a⁺ = 1 and b⁺ = 5, the midpoint is 3."""
    result = uniform_auction.clear("", [Order("s", 10, 1)], [Order("d", 10, 5)], cap=4)
    assert (result.volume, result.price_range, result.price) == (4, (1, 5), 3)


def test_the_same_result_for_all_permutations_of_a_tie() -> None:
    asks = [Order(f"s{index}", 3, 5) for index in range(5)]
    bids = [Order("d", 7, 5)]
    results = {uniform_auction.clear("tie", list(order), bids) for order in permutations(asks)}
    assert len(results) == 1


def test_another_auction_breaks_ties_otherwise() -> None:
    asks = [Order(f"s{index}", 1, 5) for index in range(6)]
    winners = {
        tuple(fill.id for fill in uniform_auction.clear(f"auction {n}", asks, [Order("d", 3, 5)]).sold)
        for n in range(20)
    }
    assert len(winners) > 5


def test_tie_break_is_length_prefixed() -> None:
    """Pinned, because everyone who recomputes a clearing needs the same bytes."""
    written = b"\x00\x00\x00\x02ab" + b"\x00\x00\x00\x03\xc3\xa9c"
    assert tie_break("ab", "éc") == hashlib.sha256(written).digest()


def test_limits_and_bad_quantities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'d' has the price 9, outside 0\.\.8"):
        uniform_auction.clear("", [Order("s", 1, 1)], [Order("d", 1, 9)], limits=(0, 8))
    with pytest.raises(ValueError, match="negative quantity"):
        uniform_auction.clear("", [Order("s", -1, 1)], [])
    with pytest.raises(ValueError, match="cap is negative"):
        uniform_auction.clear("", [], [], cap=-1)
