"""Which entry goes next: in order within an ordering key, side by side across keys, the nearest gate first."""

import heapq
from collections import deque
from dataclasses import dataclass, field

_NO_GATE = 2**63


@dataclass(slots=True)
class _Lane:
    """Entries of one key, oldest first; `gates` is a heap of (gate, entry) that may hold entries that have gone."""

    waiting: deque[int] = field(default_factory=deque)
    gates: list[tuple[int, int]] = field(default_factory=list)

    def nearest_gate(self) -> int:
        while self.gates and self.gates[0][1] < self.waiting[0]:
            heapq.heappop(self.gates)
        return self.gates[0][0] if self.gates else _NO_GATE


class Lanes:
    """Entries wait by ordering key; "" stands for no order. Only the head of a key may go.

    A key inherits the nearest gate of all that wait in it: what stands before a hurried entry must hurry too.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._heads: list[tuple[int, int, str]] = []
        self._taken: dict[int, str] = {}
        self._busy: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        """Entries that wait and are not taken."""
        return self._count

    def add(self, entry: int, ordering_key: str, gate: int | None) -> None:
        """Ids must come in growing order."""
        key = ordering_key or f"\0{entry}"
        lane = self._lanes.setdefault(key, _Lane())
        lane.waiting.append(entry)
        if gate is not None:
            heapq.heappush(lane.gates, (gate, entry))
        self._count += 1
        if len(lane.waiting) == 1 or lane.nearest_gate() == gate:
            self._offer(key, lane)

    def take(self) -> int | None:
        """The next entry to carry, or None; `done` must follow."""
        while self._heads:
            _, entry, key = heapq.heappop(self._heads)
            lane = self._lanes.get(key)
            if lane is None or not lane.waiting or lane.waiting[0] != entry or key in self._busy:
                continue  # an older offer of a head that has been taken since
            lane.waiting.popleft()
            self._busy.add(key)
            self._taken[entry] = key
            self._count -= 1
            return entry
        return None

    def done(self, entry: int) -> None:
        """The entry has ended; the next of its key may go."""
        key = self._taken.pop(entry)
        self._busy.discard(key)
        lane = self._lanes[key]
        if lane.waiting:
            self._offer(key, lane)
        else:
            del self._lanes[key]

    def _offer(self, key: str, lane: _Lane) -> None:
        if key not in self._busy:
            heapq.heappush(self._heads, (lane.nearest_gate(), lane.waiting[0], key))
