"""The scripted documents: exact fields, exact errors."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_contracts.rules import whatif
from flexrelay_contracts.rules.whatif import DocumentError

AUCTION = {
    "rule": "uniform_double_auction",
    "auction_id": "a1",
    "asks": [{"id": "s1", "quantity": 5, "price": 10}, {"id": "s2", "quantity": 5, "price": 17}],
    "bids": [{"id": "d1", "quantity": 5, "price": 20}, {"id": "d2", "quantity": 5, "price": 13}],
}
TENDER = {"rule": "pay_as_bid", "need": 6, "asks": AUCTION["asks"]}
SETTLE = {
    "ordered_wh": -750,
    "baseline_wh": 1600,
    "actual_wh": 1000,
    "price_nano_eur_per_wh": 80_000,
    "penalty_nano_eur_per_wh": 40_000,
}


def test_clear_uniform() -> None:
    assert whatif.clear(AUCTION) == {
        "volume": 5,
        "price": 15,
        "price_range": [13, 17],
        "fills": [{"id": "d1", "quantity": 5, "price": 15}, {"id": "s1", "quantity": 5, "price": 15}],
    }


def test_clear_pay_as_bid() -> None:
    assert whatif.clear(TENDER) == {
        "volume": 6,
        "price": None,
        "price_range": None,
        "fills": [{"id": "s1", "quantity": 5, "price": 10}, {"id": "s2", "quantity": 1, "price": 17}],
    }
    assert whatif.clear({**TENDER, "bids": []})["volume"] == 6


def test_no_trade() -> None:
    nothing = {"volume": 0, "price": None, "price_range": None, "fills": []}
    assert whatif.clear({**AUCTION, "bids": []}) == nothing
    assert whatif.clear({**TENDER, "need": 0}) == nothing


def test_settle() -> None:
    assert whatif.settle(SETTLE) == {"delivered_wh": 600, "deficiency_wh": 150, "net_micro_eur": 42_000}
    assert whatif.settle({**SETTLE, "actual_wh": 2000}) == {
        "delivered_wh": 0,
        "deficiency_wh": 750 + 400,
        "net_micro_eur": -46_000,
    }


def order(**changes: Any) -> dict[str, Any]:
    return {**AUCTION, "asks": [{"id": "s1", "quantity": 5, "price": 10, **changes}]}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], ""),
        ({}, "rule"),
        ({**AUCTION, "rule": "lottery"}, "rule"),
        ({**AUCTION, "rule": None}, "rule"),
        ({**AUCTION, "extra": 1}, "extra"),
        ({**AUCTION, "need": 1}, "need"),
        ({**AUCTION, "auction_id": 7}, "auction_id"),
        ({**AUCTION, "auction_id": None}, "auction_id"),
        ({**AUCTION, "auction_id": "\ud800"}, "auction_id"),
        ({**AUCTION, "asks": {}}, "asks"),
        ({"rule": "uniform_double_auction", "asks": []}, "bids"),
        ({**AUCTION, "asks": [7]}, "asks.0"),
        (order(quantity=-1), "asks.0.quantity"),
        (order(quantity=1.0), "asks.0.quantity"),
        (order(quantity=True), "asks.0.quantity"),
        (order(quantity="1"), "asks.0.quantity"),
        (order(price=None), "asks.0.price"),
        (order(price=2**53), "asks.0.price"),
        (order(price=-(2**53)), "asks.0.price"),
        (order(id=""), "asks.0.id"),
        (order(id=5), "asks.0.id"),
        (order(colour="red"), "asks.0.colour"),
        (order(id="d2"), "bids.1.id"),
        ({**AUCTION, "asks": [{"id": "s1", "quantity": 5}]}, "asks.0.price"),
        ({**TENDER, "need": -1}, "need"),
        ({**TENDER, "need": 1.5}, "need"),
        ({"rule": "pay_as_bid", "asks": []}, "need"),
        ({**TENDER, "bids": AUCTION["bids"]}, "bids"),
        ({**TENDER, "asks": [*TENDER["asks"], TENDER["asks"][0]]}, "asks.2.id"),  # type: ignore[misc]
    ],
)
def test_clear_names_what_is_wrong(document: Any, field: str) -> None:
    with pytest.raises(DocumentError) as caught:
        whatif.clear(document)
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, ""),
        ({}, "ordered_wh"),
        ({**SETTLE, "actual_wh": 1.0}, "actual_wh"),
        ({**SETTLE, "actual_wh": False}, "actual_wh"),
        ({**SETTLE, "penalty_nano_eur_per_wh": -1}, "penalty_nano_eur_per_wh"),
        ({**SETTLE, "currency": "EUR"}, "currency"),
    ],
)
def test_settle_names_what_is_wrong(document: Any, field: str) -> None:
    with pytest.raises(DocumentError) as caught:
        whatif.settle(document)
    assert caught.value.field == field


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["rule", "auction_id", "asks", "bids", "need", *SETTLE, "x"])


@given(st.dictionaries(names, json_values, max_size=6) | json_values, st.sampled_from((AUCTION, TENDER, SETTLE, {})))
def test_no_document_does_anything_else_than_clear_or_be_refused(document: Any, base: dict[str, Any]) -> None:
    if isinstance(document, dict):
        document = {**base, **document}
    for function in (whatif.clear, whatif.settle):
        try:
            json.dumps(function(document))
        except DocumentError as error:
            assert error.message
