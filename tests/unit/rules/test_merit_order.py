"""Pay-as-bid: divisible offers against a unit-by-unit brute force."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_contracts.rules import merit_order
from flexrelay_contracts.rules.orders import Order, tie_break

asks = st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 6)), max_size=9).map(
    lambda values: [Order(f"o{index}", *value) for index, value in enumerate(values)]
)


@given(asks, st.integers(0, 60))
def test_the_need_is_covered_at_the_least_cost(offers: list[Order], need: int) -> None:
    result = merit_order.clear("x", need, offers)
    units = sorted(offer.price for offer in offers for _ in range(offer.quantity))[:need]
    assert result.volume == len(units)
    assert result.shortfall == need - result.volume
    assert sum(fill.quantity for fill in result.fills) == result.volume
    assert sum(fill.quantity * fill.price for fill in result.fills) == sum(units)
    by_id = {offer.id: offer for offer in offers}
    for fill in result.fills:
        assert 0 < fill.quantity <= by_id[fill.id].quantity
        assert fill.price == by_id[fill.id].price
    assert [fill.id for fill in result.fills] == sorted({fill.id for fill in result.fills})


@given(asks, st.integers(0, 60), st.randoms())
def test_the_order_of_arrival_does_not_matter(offers: list[Order], need: int, dice: random.Random) -> None:
    before = merit_order.clear("x", need, offers)
    dice.shuffle(offers)
    assert merit_order.clear("x", need, offers) == before


@given(asks, st.integers(0, 60))
def test_no_better_offer_is_left_out(offers: list[Order], need: int) -> None:
    """Neither a cheaper one nor one that the tie-break puts before."""
    filled = {fill.id: fill.quantity for fill in merit_order.clear("x", need, offers).fills}

    def rank(offer: Order) -> tuple[int, bytes]:
        return offer.price, tie_break("x", offer.id)

    for better in offers:
        if filled.get(better.id, 0) < better.quantity:
            assert all(not filled.get(worse.id) for worse in offers if rank(worse) > rank(better))


def test_limits_and_bad_input_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.5"):
        merit_order.clear("", 1, [Order("o", 1, 6)], limits=(0, 5))
    with pytest.raises(ValueError, match="need is negative"):
        merit_order.clear("", -1, [])
    with pytest.raises(ValueError, match="negative quantity"):
        merit_order.clear("", 1, [Order("o", -1, 6)])
