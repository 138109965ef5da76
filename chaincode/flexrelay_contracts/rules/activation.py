"""Pay-as-bid selection among options that span intervals and cannot be activated below a minimum share.

An option has one power per interval, one price for the whole and one activation percentage over all its intervals;
of the options of one offer at most one is taken. The selection leaves as little of the need uncovered as the options
allow, and among those it costs the least. That is a knapsack: a depth-first search with bounds solves it exactly
within NODES steps, which is always enough for EXACT_BLOCKS options that are all-or-nothing (over up to 96 intervals),
and mostly for more and for partial ones. Where it is not, the best that was found is returned with a proven bound, and
the result says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from flexrelay_contracts.rules.activation_search import FULL, NODES, SCALE, Candidate, Search
from flexrelay_contracts.rules.orders import tie_break

EXACT_BLOCKS: Final = 13


@dataclass(frozen=True, slots=True)
class Option:
    """One alternative of an offer.

    `powers`: per interval of the need, >= 0 in the wanted direction; `price` >= 0: for the whole option at 100 %;
    `sensitivity_permille`: how much of its power helps at the congestion point.
    """

    id: str
    offer: str
    powers: tuple[int, ...]
    price: int
    min_percent: int
    sensitivity_permille: int = 1000


@dataclass(frozen=True, slots=True)
class Activation:
    """A taken option: min_percent <= `percent` <= 100 of its powers and price."""

    option: str
    percent: int


@dataclass(frozen=True, slots=True)
class Selection:
    """`activations` by option id. `uncovered`: per interval, exact in units of the need / 100,000 (percent × permille);
    `cost_percent`: Σ price × percent, exact. `method` "exact": no selection is better. "bounded": none leaves less than
    `uncovered_bound` (same unit as the sum of `uncovered`), and none that leaves no more than this one costs less
    than `cost_bound`."""

    activations: tuple[Activation, ...]
    uncovered: tuple[int, ...]
    cost_percent: int
    method: Literal["exact", "bounded"]
    uncovered_bound: int
    cost_bound: int


def select(auction_id: str, need: Sequence[int], options: Sequence[Option], *, nodes: int = NODES) -> Selection:
    """The cheapest activations that cover `need` (>= 0 per interval) as far as possible; independent of arrival order.

    Raises ValueError for an option whose powers do not fit the need, a negative number, a percentage or sensitivity out
    of range, or an id that stands twice.
    """
    _check(need, options)
    places = [index for index, value in enumerate(need) if value]
    ranked = _ranked(auction_id, places, options)
    search = Search([need[index] * SCALE for index in places], ranked, nodes)
    search.run()
    uncovered = [0] * len(need)
    for index, left in zip(places, search.left, strict=True):
        uncovered[index] = left
    return Selection(
        tuple(Activation(*chosen) for chosen in sorted(search.chosen)),
        tuple(uncovered),
        search.cost,
        "exact" if search.complete else "bounded",
        search.uncovered_bound,
        search.cost_bound,
    )


def _ranked(auction_id: str, places: Sequence[int], options: Sequence[Option]) -> list[Candidate]:
    """What helps at all, in merit order: price per effect, then the tie-break."""
    ranked = []
    for option in options:
        effect = tuple(option.powers[index] * option.sensitivity_permille for index in places)
        total = sum(effect)
        if total:
            rank = (Fraction(option.price, total), tie_break(auction_id, option.id))
            ranked.append((rank, Candidate(option.id, option.offer, effect, total, option.price, option.min_percent)))
    ranked.sort(key=lambda entry: entry[0])
    return [candidate for _, candidate in ranked]


def _check(need: Sequence[int], options: Sequence[Option]) -> None:
    if any(value < 0 for value in need):
        raise ValueError("the need is negative in an interval")
    seen: set[str] = set()
    for option in options:
        if option.id in seen:
            raise ValueError(f"option {option.id!r} stands twice")
        seen.add(option.id)
        if len(option.powers) != len(need):
            raise ValueError(f"option {option.id!r} has {len(option.powers)} intervals, the need {len(need)}")
        if option.price < 0 or any(power < 0 for power in option.powers):
            raise ValueError(f"option {option.id!r} has a negative power or price")
        if not 1 <= option.min_percent <= FULL:
            raise ValueError(f"option {option.id!r} has a minimum activation of {option.min_percent} percent")
        if not 0 <= option.sensitivity_permille <= 1000:
            raise ValueError(f"option {option.id!r} has a sensitivity of {option.sensitivity_permille} permille")
