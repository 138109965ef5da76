"""The journal's tail by device: what was appended and the history has not got to yet.

It is read when a reading is older than memory, and from then on only what was appended since. So a batch that comes
again as a whole (after a reconnection that is the normal case) costs one reading of the tail, not one a frame.
"""

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from flexrelay.journal.registers import cumulative
from flexrelay.journal.segment import Trace

Tail = Callable[[int], Iterable[list[Trace]]]
"""The journal's measurements after a position, segment by segment."""

_ORDER: Final = struct.Struct(">Qq")
_SHIFT: Final = 1 << 63
_SIZE: Final = _ORDER.size


class Point(NamedTuple):
    """A reading as the checks see it; `seq` is -1 where the device keeps none, `packed` are its registers."""

    observed_at: int
    seq: int
    packed: bytes


class TailIndex:
    """Readings at positions after `base` (at least) up to `upto`. One bytes object a reading, so that a tail of a
    million readings takes about 100 MB while it is needed; all of it goes when the history has caught up."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self._keys: dict[bytes, list[bytes]] = {}
        self._unsorted: set[bytes] = set()
        self.base = 0
        self.upto = 0

    def extend(self, history: int, needed: int) -> None:
        """Make the index hold everything at positions in (`history`, `needed`]."""
        if history - self.base > self.upto - history:  # most of it, or all, is in the history by now
            self._keys.clear()
            self._unsorted.clear()
            self.base = self.upto = history
        if self.upto >= needed:
            return
        keys, unsorted, pack = self._keys, self._unsorted, _ORDER.pack
        for traces in self._tail(self.upto):
            for _, did, observed_at, seq, packed in traces:
                key = pack(observed_at + _SHIFT, seq) + packed  # bytes that sort by instant
                found = keys.get(did)
                if found is None:
                    keys[did] = [key]
                else:
                    if key < found[-1]:
                        unsorted.add(did)
                    found.append(key)
            if traces:
                self.upto = traces[-1][0]

    def release(self, history: int) -> None:
        """Forget everything when the history has it all."""
        if self._keys and history >= self.upto:
            self.extend(history, 0)

    def around(self, did: str, instant: int) -> list[Point]:
        """The reading at `instant` where there is one; the nearest ones before and after it, of any kind and with
        each cumulative register."""
        name = did.encode()
        keys = self._keys.get(name)
        if keys is None:
            return []
        if name in self._unsorted:
            keys.sort()
            self._unsorted.discard(name)
        index = bisect_left(keys, _ORDER.pack(instant + _SHIFT, 0)[:8])
        if index < len(keys) and keys[index].startswith(_ORDER.pack(instant + _SHIFT, 0)[:8]):
            return [_point(keys[index])]
        return [*_nearest(keys, range(index - 1, -1, -1)), *_nearest(keys, range(index, len(keys)))]


def _nearest(keys: list[bytes], places: Iterable[int]) -> list[Point]:
    """The first of `places`, and the first ones with an import and with an export register."""
    found: list[Point] = []
    missing = {0, 1}
    for place in places:
        point = _point(keys[place])
        has = {register for register in missing if cumulative(point.packed)[register] is not None}
        if has or not found:
            found.append(point)
            missing -= has
        if not missing:
            break
    return found


def _point(key: bytes) -> Point:
    observed_at, seq = _ORDER.unpack_from(key)
    return Point(observed_at - _SHIFT, seq, key[_SIZE:])
