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

from flexrelay_contracts.rules.orders import tie_break

EXACT_BLOCKS: Final = 13
NODES: Final = 20_000
_STEPS: Final = 30_000_000
"""Options × intervals × nodes: keeps one selection to about a second or two, whatever its size."""
_MAX_DEPTH: Final = 200
_FULL: Final = 100


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
    search = _Search(auction_id, need, options, nodes)
    search.run()
    return search.result()


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
        if not 1 <= option.min_percent <= _FULL:
            raise ValueError(f"option {option.id!r} has a minimum activation of {option.min_percent} percent")
        if not 0 <= option.sensitivity_permille <= 1000:
            raise ValueError(f"option {option.id!r} has a sensitivity of {option.sensitivity_permille} permille")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An option as the search sees it: its effect per percent in the intervals that need something."""

    id: str
    effect: tuple[int, ...]
    total: int
    price: int
    min_percent: int


class _Search:
    """Depth first over the offers in merit order; the first leaf is the greedy selection."""

    def __init__(self, auction_id: str, need: Sequence[int], options: Sequence[Option], nodes: int) -> None:
        self._places = [index for index, value in enumerate(need) if value]
        self._size = len(need)
        self._start = [need[index] * _FULL * 1000 for index in self._places]
        ranked = []
        for option in options:
            effect = tuple(option.powers[index] * option.sensitivity_permille for index in self._places)
            if sum(effect):
                rank = (Fraction(option.price, sum(effect)), tie_break(auction_id, option.id))
                candidate = _Candidate(option.id, effect, sum(effect), option.price, option.min_percent)
                ranked.append((rank, option.offer, candidate))
        ranked.sort(key=lambda entry: entry[0])
        offers: dict[str, list[_Candidate]] = {}
        for _, offer, candidate in ranked:
            offers.setdefault(offer, []).append(candidate)
        self._offers = list(offers.values())
        place = {offer: depth for depth, offer in enumerate(offers)}
        self._ranked = [(place[offer], candidate) for _, offer, candidate in ranked]
        self._reach = self._reaches()
        self._nodes = max(1, min(nodes, _STEPS // max(1, len(ranked) * len(self._places))))
        self._best: tuple[int, int] | None = None
        self._chosen: list[tuple[str, int]] = []
        self._best_chosen: tuple[tuple[str, int], ...] = ()
        self._best_left: tuple[int, ...] = tuple(self._start)
        self._complete = True

    def _reaches(self) -> list[list[int]]:
        """Per depth and interval: the most that the offers from this depth on can cover."""
        reach = [[0] * len(self._places)]
        for candidates in reversed(self._offers):
            most = [max(column) for column in zip(*(candidate.effect for candidate in candidates), strict=True)]
            reach.append([after + value * _FULL for after, value in zip(reach[-1], most, strict=True)])
        reach.reverse()
        return reach

    def run(self) -> None:
        if len(self._offers) > _MAX_DEPTH:
            self._complete = False
            self._greedy()
        else:
            self._visit(0, self._start, 0)

    def result(self) -> Selection:
        uncovered = [0] * self._size
        for index, left in zip(self._places, self._best_left, strict=True):
            uncovered[index] = left
        assert self._best is not None
        least = least_cost = 0
        if self._complete:
            least, least_cost = self._best
        else:
            least = self._least_uncovered(0, self._start)
            least_cost = self._least_cost(0, self._start, self._best[0])
        return Selection(
            tuple(Activation(*chosen) for chosen in sorted(self._best_chosen)),
            tuple(uncovered),
            self._best[1],
            "exact" if self._complete else "bounded",
            least,
            least_cost,
        )

    def _visit(self, depth: int, left: list[int], cost: int) -> None:
        if self._nodes == 0 and self._best is not None:
            self._complete = False
            return
        self._nodes = max(0, self._nodes - 1)
        total = sum(left)
        if not total or depth == len(self._offers):
            self._record(left, total, cost)
            return
        if self._best is not None:
            reachable = self._least_uncovered(depth, left)
            if reachable > self._best[0]:
                return
            if reachable == self._best[0] and cost + self._least_cost(depth, left, reachable) >= self._best[1]:
                return
        last = depth == len(self._offers) - 1
        for candidate in self._offers[depth]:
            useful = _useful_percent(candidate, left)
            if not useful:
                continue
            lowest = useful if last else candidate.min_percent
            for percent in range(useful, lowest - 1, -1):
                rest = [
                    have - effect * percent if have > effect * percent else 0
                    for have, effect in zip(left, candidate.effect, strict=True)
                ]
                self._chosen.append((candidate.id, percent))
                self._visit(depth + 1, rest, cost + candidate.price * percent)
                self._chosen.pop()
        self._visit(depth + 1, left, cost)

    def _greedy(self) -> None:
        left, cost = self._start, 0
        for candidates in self._offers:
            candidate = candidates[0]
            percent = _useful_percent(candidate, left)
            if percent:
                left = [max(0, have - value * percent) for have, value in zip(left, candidate.effect, strict=True)]
                cost += candidate.price * percent
                self._chosen.append((candidate.id, percent))
        self._record(left, sum(left), cost)

    def _record(self, left: list[int], total: int, cost: int) -> None:
        if self._best is None or (total, cost) < self._best:
            self._best = (total, cost)
            self._best_left = tuple(left)
            self._best_chosen = tuple(self._chosen)

    def _least_uncovered(self, depth: int, left: list[int]) -> int:
        return sum([have - most for have, most in zip(left, self._reach[depth], strict=True) if have > most])

    def _least_cost(self, depth: int, left: list[int], uncovered: int) -> int:
        """Below any cost of covering all but `uncovered` of `left` from this depth on: fractions, cheapest first."""
        missing = sum(left) - uncovered
        cost = 0
        for place, candidate in self._ranked:
            if missing <= 0:
                break
            if place >= depth:
                most = min(missing, sum([min(have, e * _FULL) for have, e in zip(left, candidate.effect, strict=True)]))
                cost += candidate.price * most // candidate.total
                missing -= most
        return cost


def _useful_percent(candidate: _Candidate, left: list[int]) -> int:
    """The percentage above which the option covers nothing more (at least its minimum); 0 when it covers nothing."""
    percent = 0
    for have, effect in zip(left, candidate.effect, strict=True):
        if have and effect:
            percent = max(percent, -(-have // effect))
            if percent >= _FULL:
                return _FULL
    return max(percent, candidate.min_percent) if percent else 0
