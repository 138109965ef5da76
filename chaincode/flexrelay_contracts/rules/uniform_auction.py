"""Uniform double auction: the largest volume at one price, whatever the order of arrival.

With a_k, b_k the prices of the last accepted ask and bid and a⁺, b⁺ those of the first that are not accepted (or of
the rest of a part-filled order): lo = max(a_k, b⁺), hi = min(b_k, a⁺), price = ⌊(lo + hi) / 2⌋. A volume cap that binds
can put b⁺ above a⁺, so that lo > hi; the price is the same midpoint then, between a_k and b_k, and the range is given
in ascending order. Orders at the marginal price share what is left pro rata (`orders.pro_rata`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from flexrelay_contracts.rules.orders import Fill, Order, check_quantities, pro_rata

_price = attrgetter("price")
_id = attrgetter("id")


@dataclass(frozen=True, slots=True)
class Clearing:
    """Result of an auction: `volume` is sold and bought; no trade: no price and no range. Fills by id."""

    volume: int
    price: int | None
    price_range: tuple[int, int] | None
    sold: tuple[Fill, ...]
    bought: tuple[Fill, ...]


def clear(
    auction_id: str,
    asks: Sequence[Order],
    bids: Sequence[Order],
    *,
    cap: int | None = None,
    limits: tuple[int, int] | None = None,
) -> Clearing:
    """Clear the auction: O(n log n), ids unique across both sides (`whatif` and the contract see to that).

    `cap` is the largest volume that may trade (headroom of the congestion point), `limits` the lowest and highest
    admissible price of an order. Raises ValueError for a negative quantity or cap, or a price beyond the limits.
    """
    check_quantities(asks)
    check_quantities(bids)
    if cap is not None and cap < 0:
        raise ValueError(f"the volume cap is negative: {cap}")
    if limits is not None:
        _check_limits((*asks, *bids), limits)
    supply = sorted([order for order in asks if order.quantity], key=_price)
    demand = sorted([order for order in bids if order.quantity], key=_price, reverse=True)
    volume = _volume(supply, demand)
    if cap is not None:
        volume = min(volume, cap)
    if volume == 0:
        return Clearing(0, None, None, (), ())
    last_ask, next_ask = _marginal(supply, volume)
    last_bid, next_bid = _marginal(demand, volume)
    low = last_ask if next_bid is None else max(last_ask, next_bid)
    high = last_bid if next_ask is None else min(last_bid, next_ask)
    price = (low + high) // 2
    return Clearing(
        volume,
        price,
        (min(low, high), max(low, high)),
        _fills(auction_id, supply, volume, last_ask, price),
        _fills(auction_id, demand, volume, last_bid, price),
    )


def _check_limits(orders: Sequence[Order], limits: tuple[int, int]) -> None:
    lowest, highest = limits
    for order in orders:
        if not lowest <= order.price <= highest:
            raise ValueError(f"order {order.id!r} has the price {order.price}, outside {lowest}..{highest}")


def _volume(supply: list[Order], demand: list[Order]) -> int:
    """The largest volume: both sides walked from their best price until they no longer cross."""
    volume = offered = wanted = 0
    asks, bids = iter(supply), iter(demand)
    ask, bid = next(asks, None), next(bids, None)
    while ask is not None and bid is not None and ask.price <= bid.price:
        ask_end, bid_end = offered + ask.quantity, wanted + bid.quantity
        if ask_end <= bid_end:
            volume = offered = ask_end
            ask = next(asks, None)
        if bid_end <= ask_end:
            volume = wanted = bid_end
            bid = next(bids, None)
    return volume


def _marginal(side: list[Order], volume: int) -> tuple[int, int | None]:
    """Price of the last accepted order and of the first that is not accepted in full, for this volume > 0."""
    total = 0
    for index, order in enumerate(side):
        total += order.quantity
        if total > volume:
            return order.price, order.price
        if total == volume:
            return order.price, side[index + 1].price if index + 1 < len(side) else None
    raise AssertionError("the volume exceeds the side")


def _fills(auction_id: str, side: list[Order], volume: int, marginal: int, price: int) -> tuple[Fill, ...]:
    """Better than the marginal price: in full; at it: pro rata; by id."""
    left = volume
    level: list[Order] = []
    filled: list[Fill] = []
    for order in side:
        if order.price == marginal:
            level.append(order)
        elif level:
            break
        else:
            filled.append(Fill(order.id, order.quantity, price))
            left -= order.quantity
    shares = pro_rata(auction_id, level, left)
    filled += [Fill(order.id, share, price) for order, share in zip(level, shares, strict=True) if share]
    filled.sort(key=_id)
    return tuple(filled)
