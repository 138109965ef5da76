"""Clearing 100,000 orders, compared with sorting the same objects by price and id."""

import random
from collections.abc import Callable
from typing import Any

from flexrelay.bench import Result, cpu_seconds
from flexrelay_contracts.rules import merit_order, uniform_auction
from flexrelay_contracts.rules.orders import Order

ORDERS = 100_000
_AGAINST = "sorted(orders, key=(price, id))"


def run(orders: int = ORDERS) -> list[Result]:
    """clear_uniform and clear_pay_as_bid: CPU seconds of one clearing, and their ratio to the sort."""
    dice = random.Random(7)  # noqa: S311 - the same orders in every run, no secret
    made = [Order(f"o{index:06d}", dice.randint(1, 50_000), dice.randint(20_000, 120_000)) for index in range(orders)]
    dice.shuffle(made)
    asks, bids = made[: orders // 2], made[orders // 2 :]
    need = sum(order.quantity for order in made) // 2
    reference = cpu_seconds(lambda: sorted(made, key=lambda order: (order.price, order.id)))
    return [
        _result("clear_uniform", lambda: uniform_auction.clear("bench", asks, bids), reference),
        _result("clear_pay_as_bid", lambda: merit_order.clear("bench", need, made), reference),
    ]


def _result(name: str, work: Callable[[], Any], reference: float) -> Result:
    seconds = cpu_seconds(work)
    return {"name": name, "value": seconds, "unit": "s", "ratio": seconds / reference, "against": _AGAINST}
