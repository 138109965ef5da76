"""Settlement of one line: an order for flexibility against baseline and meter, exact, then floored once.

With s = sign(ordered), o = |ordered|, r = s·(actual − baseline): delivered d = clamp(r, 0, o), deficiency
x = max(o − r, 0), net = pay(d) − x·penalty. Without a payout curve pay(d) = d·price. Energies are joules with positive
= withdrawal from the grid, prices n€/Wh, money µ€ with positive = to the provider.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SCALE: Final = 3_600_000
"""joule × n€/Wh per µ€."""

Curve = Sequence[tuple[int, int]]
"""Corners (delivered ‰ of the order, paid ‰ of its price), rising from (0, …) to (1000, …); straight in between."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line item. Exactly: net = net_micro_eur + remainder / denominator µ€, 0 <= remainder < denominator."""

    delivered_j: int
    deficiency_j: int
    net_micro_eur: int
    remainder: int
    denominator: int


def settle(
    ordered_j: int,
    baseline_j: int,
    actual_j: int,
    price_nano_eur_per_wh: int,
    penalty_nano_eur_per_wh: int,
    *,
    curve: Curve = (),
    tolerance_permille: int = 0,
) -> Line:
    """One interval of an order. A deficiency up to `tolerance_permille` of the order carries no penalty; a larger one
    carries it in full. Raises ValueError for a negative penalty, a tolerance outside 0..1000 or a curve that is none.
    """
    if penalty_nano_eur_per_wh < 0:
        raise ValueError(f"the penalty is negative: {penalty_nano_eur_per_wh}")
    if not 0 <= tolerance_permille <= 1000:
        raise ValueError(f"a tolerance of {tolerance_permille} permille is outside 0..1000")
    sign = (ordered_j > 0) - (ordered_j < 0)
    ordered = abs(ordered_j)
    response = sign * (actual_j - baseline_j)
    delivered = min(max(response, 0), ordered)
    deficiency = max(ordered - response, 0) if sign else 0
    pay, scale = _pay(delivered, ordered, price_nano_eur_per_wh, curve)
    if deficiency * 1000 > tolerance_permille * ordered:
        pay -= deficiency * penalty_nano_eur_per_wh * scale
    return _line(delivered, deficiency, pay, SCALE * scale)


def rebound(direction: int, room_j: int, baseline_j: int, actual_j: int, penalty_nano_eur_per_wh: int) -> Line:
    """An interval without an order: energy in `direction` (+1 | -1) beyond the `room_j` >= 0 costs a penalty.

    `delivered_j` is zero, `deficiency_j` the energy beyond the room. Raises ValueError.
    """
    if direction not in (-1, 1) or room_j < 0 or penalty_nano_eur_per_wh < 0:
        raise ValueError("a rebound has a direction of +1 or -1, a room and a penalty that are not negative")
    excess = max(direction * (actual_j - baseline_j) - room_j, 0)
    return _line(0, excess, -excess * penalty_nano_eur_per_wh, SCALE)


def value(energy_j: int, price_nano_eur_per_wh: int) -> Line:
    """energy × price as a line of its own: `delivered_j` is the energy, nothing is deficient."""
    return _line(energy_j, 0, energy_j * price_nano_eur_per_wh, SCALE)


def check_curve(curve: Curve) -> None:
    """Raises ValueError unless the corners rise from 0 to 1000 ‰ delivered and never fall in what they pay."""
    if len(curve) < 2 or curve[0][0] != 0 or curve[-1][0] != 1000:
        raise ValueError("a payout curve reaches from 0 to 1000 permille delivered")
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 <= x0 or y1 < y0:
            raise ValueError(f"the payout curve does not rise at {x1} permille delivered")


def _pay(delivered: int, ordered: int, price: int, curve: Curve) -> tuple[int, int]:
    """(numerator, scale): what the provider earns is numerator / (SCALE × scale) µ€."""
    if not curve:
        return delivered * price, 1
    check_curve(curve)
    share = delivered * 1000  # of ordered × ‰: the order itself cancels out below, nothing is divided
    for (x0, y0), (x1, y1) in pairwise(curve):
        if share <= x1 * ordered:
            width = x1 - x0
            return price * (y0 * width * ordered + (y1 - y0) * (share - x0 * ordered)), 1000 * width
    raise AssertionError("delivered is beyond the order")


def _line(delivered: int, deficiency: int, numerator: int, denominator: int) -> Line:
    net, remainder = divmod(numerator, denominator)
    return Line(delivered, deficiency, net, remainder, denominator)
