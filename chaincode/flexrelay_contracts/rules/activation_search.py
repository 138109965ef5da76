"""The search behind `activation`: a greedy selection, improved by a depth-first search with bounds.

Coverage is counted in need × SCALE, so that a percentage of a power with a sensitivity in permille stays an integer.
The objective is lexicographic: (uncovered, cost). Everything follows the candidates' rank, never their arrival.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heapreplace
from typing import Final

FULL: Final = 100
SCALE: Final = FULL * 1000
NODES: Final = 20_000
_STEPS: Final = 30_000_000
"""Options × intervals × nodes: keeps one selection to about a second or two, whatever its size."""
_MAX_DEPTH: Final = 200


@dataclass(frozen=True, slots=True)
class Candidate:
    """An option as the search sees it: its effect per percent in the intervals that need something."""

    id: str
    offer: str
    effect: tuple[int, ...]
    total: int
    price: int
    min_percent: int


class Search:
    """Depth first over the offers in merit order, from a greedy selection on. After `run`: the selection and bounds."""

    def __init__(self, need: Sequence[int], ranked: Sequence[Candidate], nodes: int) -> None:
        self._need = list(need)
        self._ranked = ranked
        offers: dict[str, list[Candidate]] = {}
        for candidate in ranked:
            offers.setdefault(candidate.offer, []).append(candidate)
        self._offers = list(offers.values())
        place = {offer: depth for depth, offer in enumerate(offers)}
        self._depth = [place[candidate.offer] for candidate in ranked]
        self._reach = self._reaches()
        self._by_interval = [self._cheapest_for(index) for index in range(len(need))]
        self._nodes = max(1, min(nodes, _STEPS // max(1, len(ranked) * len(need))))
        self._path: list[tuple[str, int]] = []
        self.complete = len(self._offers) <= _MAX_DEPTH
        self.chosen: tuple[tuple[str, int], ...] = ()
        self.left: tuple[int, ...] = tuple(need)
        self.cost = 0
        self._uncovered = sum(need)

    @property
    def uncovered_bound(self) -> int:
        """No selection leaves less."""
        return self._uncovered if self.complete else self._least_uncovered(0, self._need)

    @property
    def cost_bound(self) -> int:
        """No selection that leaves as little costs less."""
        if self.complete:
            return self.cost
        bounds = [self._least_cost_of(index, 0, self._need, self._uncovered) for index in range(len(self._need))]
        return max(self._least_cost(0, self._need, self._uncovered), *bounds)

    def run(self) -> None:
        self._greedy()
        if self.complete:
            self._visit(0, self._need, 0)

    def _reaches(self) -> list[list[int]]:
        """Per depth and interval: the most that the offers from this depth on can cover."""
        reach = [[0] * len(self._need)]
        for candidates in reversed(self._offers):
            most = [max(column) for column in zip(*(candidate.effect for candidate in candidates), strict=True)]
            reach.append([after + value * FULL for after, value in zip(reach[-1], most, strict=True)])
        reach.reverse()
        return reach

    def _cheapest_for(self, index: int) -> list[int]:
        """Ranks of the candidates that help in an interval, by price per effect in this interval alone."""
        helping = [rank for rank, candidate in enumerate(self._ranked) if candidate.effect[index]]
        helping.sort(key=lambda rank: Fraction(self._ranked[rank].price, self._ranked[rank].effect[index]))
        return helping

    # -- the first selection

    def _greedy(self) -> None:
        """Always what costs least per coverage that is still missing; what turns out too much is taken back."""
        if not self._ranked:
            return
        left = list(self._need)
        heap = [(self._worth(candidate, left), rank) for rank, candidate in enumerate(self._ranked)]
        heapify(heap)
        used: set[str] = set()
        taken: list[tuple[Candidate, int]] = []
        while heap[0][0][0] == 0 and any(have > 0 for have in left):
            rank = heap[0][1]
            candidate = self._ranked[rank]
            worth = (1, Fraction(0)) if candidate.offer in used else self._worth(candidate, left)
            if worth != heap[0][0]:  # less is missing than when it was ranked: it only gets worse
                heapreplace(heap, (worth, rank))
                continue
            percent = useful_percent(candidate, left)
            left = [have - effect * percent for have, effect in zip(left, candidate.effect, strict=True)]
            used.add(candidate.offer)
            taken.append((candidate, percent))
            heapreplace(heap, ((1, Fraction(0)), rank))
        self._keep(self._trimmed(taken, left))

    @staticmethod
    def _worth(candidate: Candidate, left: list[int]) -> tuple[int, Fraction]:
        """(0, price per useful effect), or (1, 0) when it covers nothing that is missing."""
        useful = sum(
            [min(have, effect * FULL) for have, effect in zip(left, candidate.effect, strict=True) if have > 0]
        )
        return (0, Fraction(candidate.price * FULL, useful)) if useful else (1, Fraction(0))

    @staticmethod
    def _trimmed(taken: list[tuple[Candidate, int]], left: list[int]) -> list[tuple[Candidate, int]]:
        """Each activation, the dearest first, lowered as far as the coverage stays."""
        kept = []
        for candidate, percent in sorted(taken, key=lambda item: Fraction(item[0].price, item[0].total), reverse=True):
            spare = percent
            for have, effect in zip(left, candidate.effect, strict=True):
                if effect:
                    spare = min(spare, max(-have, 0) // effect)
            lowered = 0 if spare == percent else max(percent - spare, candidate.min_percent)
            left[:] = [have + effect * (percent - lowered) for have, effect in zip(left, candidate.effect, strict=True)]
            if lowered:
                kept.append((candidate, lowered))
        return kept

    def _keep(self, taken: list[tuple[Candidate, int]]) -> None:
        left = list(self._need)
        for candidate, percent in taken:
            left = [have - effect * percent for have, effect in zip(left, candidate.effect, strict=True)]
        self._path = [(candidate.id, percent) for candidate, percent in taken]
        self._record([max(0, have) for have in left], sum(candidate.price * percent for candidate, percent in taken))
        self._path = []

    # -- the search

    def _visit(self, depth: int, left: list[int], cost: int) -> None:
        if self._nodes == 0:
            self.complete = False
            return
        self._nodes -= 1
        if depth == len(self._offers) or not any(left):
            self._record(left, cost)
            return
        reachable = self._least_uncovered(depth, left)
        if reachable > self._uncovered:
            return
        if reachable == self._uncovered and self._is_dearer(depth, left, reachable, cost):
            return
        last = depth == len(self._offers) - 1
        for candidate in self._offers[depth]:
            useful = useful_percent(candidate, left)
            if not useful:
                continue
            lowest = useful if last else candidate.min_percent
            for percent in range(useful, lowest - 1, -1):
                rest = [
                    have - effect * percent if have > effect * percent else 0
                    for have, effect in zip(left, candidate.effect, strict=True)
                ]
                self._path.append((candidate.id, percent))
                self._visit(depth + 1, rest, cost + candidate.price * percent)
                self._path.pop()
        self._visit(depth + 1, left, cost)

    def _record(self, left: list[int], cost: int) -> None:
        total = sum(left)
        if (total, cost) < (self._uncovered, self.cost):
            self._uncovered, self.cost = total, cost
            self.left = tuple(left)
            self.chosen = tuple(self._path)

    def _is_dearer(self, depth: int, left: list[int], uncovered: int, cost: int) -> bool:
        """Whether nothing below this node can cost less than the best: by the sum, then by the scarcest interval."""
        if cost + self._least_cost(depth, left, uncovered) >= self.cost:
            return True
        reach = self._reach[depth]
        scarcest = max(range(len(left)), key=lambda index: left[index] * FULL // max(reach[index], 1))
        return cost + self._least_cost_of(scarcest, depth, left, uncovered) >= self.cost

    def _least_uncovered(self, depth: int, left: list[int]) -> int:
        return sum([have - most for have, most in zip(left, self._reach[depth], strict=True) if have > most])

    def _least_cost(self, depth: int, left: list[int], uncovered: int) -> int:
        """Below any cost of covering all but `uncovered` of `left` from this depth on: fractions, cheapest first."""
        missing = sum(left) - uncovered
        cost = 0
        for place, candidate in zip(self._depth, self._ranked, strict=True):
            if missing <= 0:
                break
            if place >= depth:
                most = sum([min(have, effect * FULL) for have, effect in zip(left, candidate.effect, strict=True)])
                most = min(missing, most)
                cost += candidate.price * most // candidate.total
                missing -= most
        return cost

    def _least_cost_of(self, index: int, depth: int, left: list[int], uncovered: int) -> int:
        """Below any cost of covering one interval, however much of `uncovered` falls into it."""
        missing = left[index] - uncovered
        cost = 0
        for rank in self._by_interval[index]:
            if missing <= 0:
                break
            if self._depth[rank] >= depth:
                candidate = self._ranked[rank]
                most = min(missing, candidate.effect[index] * FULL)
                cost += candidate.price * most // candidate.effect[index]
                missing -= most
        return cost


def useful_percent(candidate: Candidate, left: Sequence[int]) -> int:
    """The percentage above which the option covers nothing more (at least its minimum); 0 when it covers nothing."""
    percent = 0
    for have, effect in zip(left, candidate.effect, strict=True):
        if have > 0 and effect:
            percent = max(percent, -(-have // effect))
            if percent >= FULL:
                return FULL
    return max(percent, candidate.min_percent) if percent else 0
