"""Which entry goes next: in order within an ordering key, side by side across keys, the nearest gate first."""

import heapq
from collections import deque

_NO_GATE = 2**63


class Lanes:
    """Entries wait by ordering key; "" stands for no order. Only the head of a key may go.

    A key inherits the nearest gate of all that wait in it: what stands before a hurried entry must hurry too.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[int, int]]] = {}
        self._heads: list[tuple[int, int, str]] = []
        self._taken: dict[int, str] = {}
        self._busy: set[str] = set()

    def __len__(self) -> int:
        """Entries that wait and are not taken."""
        return sum(len(lane) for lane in self._waiting.values())

    def add(self, entry: int, ordering_key: str, gate: int | None) -> None:
        """Ids must come in growing order."""
        key = ordering_key or f"\0{entry}"
        lane = self._waiting.setdefault(key, deque())
        lane.append((entry, _NO_GATE if gate is None else gate))
        self._offer(key)

    def take(self) -> int | None:
        """The next entry to carry, or None; `done` must follow."""
        while self._heads:
            _, entry, key = heapq.heappop(self._heads)
            lane = self._waiting.get(key)
            if not lane or lane[0][0] != entry or key in self._busy:
                continue  # an older offer of a head that has been taken since
            lane.popleft()
            self._busy.add(key)
            self._taken[entry] = key
            return entry
        return None

    def done(self, entry: int) -> None:
        """The entry has ended; the next of its key may go."""
        key = self._taken.pop(entry)
        self._busy.discard(key)
        if self._waiting.get(key):
            self._offer(key)
        else:
            self._waiting.pop(key, None)

    def _offer(self, key: str) -> None:
        lane = self._waiting[key]
        if key not in self._busy:
            gate = min(gate for _, gate in lane)
            heapq.heappush(self._heads, (gate, lane[0][0], key))
