"""Pay-as-bid merit order of one buyer, for divisible offers: the cheapest first, each paid at its own price."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from flexrelay_contracts.rules.orders import Fill, Order, check_quantities, tie_break

_price = attrgetter("price")
_id = attrgetter("id")


@dataclass(frozen=True, slots=True)
class Clearing:
    """`volume` <= need is bought in `fills` (by id); a `shortfall` is what nobody offered."""

    volume: int
    shortfall: int
    fills: tuple[Fill, ...]


def clear(auction_id: str, need: int, asks: Sequence[Order], *, limits: tuple[int, int] | None = None) -> Clearing:
    """Cover `need` at the least cost: O(n log n), independent of the order of arrival.

    Among offers at the marginal price the tie-break decides who comes first; the last one may be filled in part. Offers
    with a minimum activation are `activation.select`'s. Raises ValueError for a negative need or quantity, or a price
    beyond `limits`.
    """
    if need < 0:
        raise ValueError(f"the need is negative: {need}")
    check_quantities(asks)
    if limits is not None:
        for ask in asks:
            if not limits[0] <= ask.price <= limits[1]:
                raise ValueError(f"order {ask.id!r} has the price {ask.price}, outside {limits[0]}..{limits[1]}")
    offers = sorted([ask for ask in asks if ask.quantity], key=_price)
    left = need
    taken = 0
    for offer in offers:
        if offer.quantity > left:
            break
        left -= offer.quantity
        taken += 1
    if taken < len(offers) and (left or (taken and offers[taken - 1].price == offers[taken].price)):
        taken, fills = _marginal_level(auction_id, offers, taken, left)
        left = 0
    else:
        fills = []
    fills += [Fill(*offer) for offer in offers[:taken]]
    fills.sort(key=_id)
    return Clearing(need - left, left, tuple(fills))


def _marginal_level(auction_id: str, offers: list[Order], taken: int, left: int) -> tuple[int, list[Fill]]:
    """The offers at the price of `offers[taken]`, which cannot be taken whole: (offers before the level, its fills)."""
    price = offers[taken].price
    first = end = taken
    while first and offers[first - 1].price == price:
        first -= 1
        left += offers[first].quantity
    while end < len(offers) and offers[end].price == price:
        end += 1
    fills = []
    for offer in sorted(offers[first:end], key=lambda offer: tie_break(auction_id, offer.id)):
        quantity = min(offer.quantity, left)
        if not quantity:
            break
        fills.append(Fill(offer.id, quantity, price))
        left -= quantity
    return first, fills
