"""Orders and fills of a clearing, and the order in which ties are broken."""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple


class Order(NamedTuple):
    """A divisible bid or ask: `quantity` >= 0 in any one unit, `price` in any one money per unit (may be negative)."""

    id: str
    quantity: int
    price: int


class Fill(NamedTuple):
    """What an order gets: 0 < `quantity` <= the order's, at `price`."""

    id: str
    quantity: int
    price: int


def tie_break(auction_id: str, order_id: str) -> bytes:
    """Orders that are equal otherwise go by this hash, the smallest first: known to nobody's advantage beforehand.

    SHA-256 over both ids in UTF-8, each after its length in 4 bytes, big-endian.
    """
    auction, order = auction_id.encode(), order_id.encode()
    return sha256(len(auction).to_bytes(4, "big") + auction + len(order).to_bytes(4, "big") + order).digest()


def check_quantities(orders: Iterable[Order]) -> None:
    """Raises ValueError for a negative quantity."""
    for order in orders:
        if order.quantity < 0:
            raise ValueError(f"order {order.id!r} has the negative quantity {order.quantity}")


def pro_rata(auction_id: str, orders: list[Order], amount: int) -> list[int]:
    """Shares of `amount` in proportion to the orders' quantities, in whole units, largest remainder first.

    Equal remainders go by the tie-break. `amount` <= the sum of the quantities; a share never exceeds its order.
    """
    total = sum([order.quantity for order in orders])
    if amount == total:
        return [order.quantity for order in orders]
    if amount > total:
        raise ValueError(f"{amount} is more than the {total} that the orders have")
    split = [divmod(order.quantity * amount, total) for order in orders]
    shares = [share for share, _ in split]
    missing = amount - sum(shares)
    if not missing:
        return shares
    threshold = sorted([rest for _, rest in split], reverse=True)[missing - 1]
    tied = []
    for index, (_, rest) in enumerate(split):
        if rest > threshold:
            shares[index] += 1
            missing -= 1
        elif rest == threshold:
            tied.append(index)
    if missing < len(tied):
        tied.sort(key=lambda index: tie_break(auction_id, orders[index].id))
    for index in tied[:missing]:
        shares[index] += 1
    return shares
