"""Registers and sequence numbers against their neighbours by `observed_at`, not by arrival.

A reading must lie between the earlier and the later reading of its device: cumulative registers must not fall, except
over a declared meter exchange or roll-over; sequence numbers must grow. Back-fill and reordering are normal. The same
registers at the same instant are a duplicate, other registers at the same instant are equivocation.

Held in memory a device: the newest readings (KEEP), and the newest one with each cumulative register. What is older
comes from the history (the twin's), and from the journal's tail where the history has not got to it yet.
"""

import struct
from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from flexrelay.ingest.tail import Point, Tail, TailIndex
from flexrelay.journal.registers import cumulative
from flexrelay.journal.segment import Trace
from flexrelay_schemas.quality import Notice

KEEP: Final = 4
_REGISTERS: Final = ("import_j", "export_j")
_BOTH: Final = 3  # the bits of both cumulative registers in packed registers
_PAIR: Final = struct.Struct("<qq").unpack_from
_BACKFILLED: Final = int(Notice.BACKFILLED)
_GAP: Final = int(Notice.GAP)
_ROLLOVER: Final = int(Notice.ROLLOVER)


class History(Protocol):
    """What a consumer of the journal has stored of each device, by `observed_at`."""

    @property
    def position(self) -> int:
        """The journal position up to which it answers."""
        ...

    def newest(self, did: str, count: int) -> Sequence[Point]:
        """The newest points, ascending."""
        ...

    def nearest(self, did: str, instant: int, *, earlier: bool, register: int | None = None) -> Point | None:
        """The nearest point at or before (`earlier`) or after `instant`; with `register` (0 import, 1 export) the
        nearest that has it."""
        ...

    def exchanged(self, did: str, after: int, until: int) -> bool:
        """Whether a meter exchange or roll-over was declared at an instant in (after, until]."""
        ...


class HistoryUnavailable(Exception):
    """What is stored cannot be looked up now: nothing can be judged, and nothing of it is the reading's fault."""


class NoHistory:
    """Nothing is stored anywhere but in the journal: `RegisterChecks.prime` takes it all over."""

    position = 0

    def newest(self, did: str, count: int) -> Sequence[Point]:
        return ()

    def nearest(self, did: str, instant: int, *, earlier: bool, register: int | None = None) -> Point | None:
        return None

    def exchanged(self, did: str, after: int, until: int) -> bool:
        return False


class Judged(NamedTuple):
    """`duplicate`: it is there already. `notice`: a Notice's bits."""

    duplicate: bool
    notice: int


class Inconsistent(Exception):
    """The reading contradicts its neighbours; `reason` is a short code."""

    def __init__(self, reason: str, message: str, field: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class _State:
    __slots__ = ("evicted", "floor", "points", "seen", "solid")

    def __init__(self, points: list[Point], evicted: int) -> None:
        self.points = points
        self.floor: tuple[Point, ...] = ()
        """Older points that carry the newest value of a cumulative register."""
        self.evicted = evicted
        """0: all points of the device are here. Else the journal position up to which more may be elsewhere."""
        self.solid = points[0].observed_at if points else 0
        """From this instant on all points are here."""
        self.seen = 0
        """The cumulative registers that the device has ever sent, as bits."""
        for point in points:
            self.seen |= point.packed[0] & _BOTH


_DUPLICATE: Final = Judged(True, 0)
_PLAIN: Final = Judged(False, 0)
_NOTICED: Final = tuple(Judged(False, bits) for bits in range(32))


class RegisterChecks:
    """For one thread. `admit` every reading of a batch, then `commit` or `roll_back` the batch."""

    def __init__(self, history: History, tail: Tail) -> None:
        """`tail(after)` yields the journal's measurements after a position, segment by segment."""
        self._history = history
        self._tail = tail
        self._index = TailIndex(tail)
        self._states: dict[str, _State] = {}
        self._added: list[tuple[_State, Point]] = []

    def __len__(self) -> int:
        return len(self._states)

    def prime(self) -> int:
        """Take over the journal's tail that the history has not got to yet; the number of readings seen."""
        count = position = 0
        newest: dict[bytes, list[Trace]] = {}
        for traces in self._tail(self._history.position):
            count += len(traces)
            for trace in traces:
                found = newest.get(trace[1])
                if found is None:
                    newest[trace[1]] = [trace]
                else:
                    found.append(trace)
            position = traces[-1][0] if traces else position
            for did, found in newest.items():
                if len(found) > 128:
                    newest[did] = _newest_traces(found)
        for did, found in newest.items():
            state = self._state(did.decode())
            state.points = sorted({*state.points, *(Point(*trace[2:]) for trace in found)})
            for point in state.points:
                state.seen |= point.packed[0] & _BOTH
            self._trim(state, position)
            state.evicted, state.solid = position, state.points[0].observed_at  # more of it may stand in the tail
        return count

    def admit(self, did: str, observed_at: int, seq: int, packed: bytes) -> Judged:
        """Judge one reading and, unless it is a duplicate, count it in. Raises Inconsistent."""
        state = self._states.get(did)
        if state is None:
            state = self._state(did)
        points = state.points
        if not points or observed_at > points[-1][0]:
            notice = self._in_order(did, state, observed_at, seq, packed) if points else 0
            point = Point(observed_at, seq, packed)
            points.append(point)
            state.seen |= packed[0] & _BOTH
            self._added.append((state, point))
            return _NOTICED[notice] if notice else _PLAIN
        return self._out_of_order(did, state, Point(observed_at, seq, packed))

    def newest(self, did: str) -> int | None:
        """The instant of the device's newest reading; None before its first. Raises HistoryUnavailable."""
        points = self._state(did).points
        return points[-1].observed_at if points else None

    def following(self, did: str, instant: int) -> int | None:
        """The instant of the device's first reading at or after this one. Raises HistoryUnavailable."""
        state = self._state(did)
        points = state.points
        if not points or points[-1].observed_at < instant:
            return None
        if state.evicted and instant < state.solid:
            points = self._neighbourhood(did, state, instant)
        return points[bisect_left(points, instant, key=_instant)].observed_at

    def mark(self) -> int:
        """A point in the batch to go back to with `roll_back`."""
        return len(self._added)

    def commit(self, end: int) -> None:
        """The batch is in the journal, whose newest position is `end`."""
        for state, _ in self._added:
            if len(state.points) > KEEP:
                self._trim(state, end)
        self._added.clear()
        self._index.release(self._history.position)

    def roll_back(self, mark: int = 0) -> None:
        """Forget what was admitted since `mark`."""
        while len(self._added) > mark:
            state, point = self._added.pop()
            state.points.remove(point)

    def _state(self, did: str) -> _State:
        state = self._states.get(did)
        if state is None:
            points = list(self._history.newest(did, KEEP))
            state = self._states[did] = _State(points, 1 if len(points) == KEEP else 0)
            if state.evicted:
                floor = []
                for register in (0, 1):
                    if not any(cumulative(point.packed)[register] is not None for point in points):
                        found = self._history.nearest(did, points[0].observed_at, earlier=True, register=register)
                        floor += [found] if found is not None else []
                state.floor = tuple(sorted(set(floor)))
                for point in floor:
                    state.seen |= point.packed[0] & _BOTH
        return state

    @staticmethod
    def _trim(state: _State, position: int) -> None:
        points = state.points
        if points and points[-1].packed[0] & _BOTH == state.seen:  # the newest one carries all that is cumulative
            state.floor = ()
            if len(points) > KEEP:
                del points[:-KEEP]
                state.evicted, state.solid = position, points[0].observed_at
            return
        kept, floor, dropped = _trimmed([*state.floor, *points])
        state.points, state.floor = kept, floor
        if dropped:
            state.evicted, state.solid = position, kept[0].observed_at

    def _in_order(self, did: str, state: _State, observed_at: int, seq: int, packed: bytes) -> int:
        last = state.points[-1]
        notice = 0
        if seq >= 0 and last[1] >= 0:
            if seq <= last[1]:
                raise Inconsistent("replay", f"sequence number {seq} follows {last[1]} in time", "seq")
            if seq > last[1] + 1:
                notice = _GAP
        if packed[0] & last[2][0] & _BOTH == _BOTH:
            imported, exported = _PAIR(last[2], 2)
            now_imported, now_exported = _PAIR(packed, 2)
            if now_imported >= imported and now_exported >= exported:
                return notice
        values, before = cumulative(packed), cumulative(last[2])
        for register in (0, 1):
            value = values[register]
            if value is None:
                continue
            reference, earlier = before[register], last
            if reference is None:
                found = _nearest_with(state.points, register) or _nearest_with(state.floor, register)
                if found is None:
                    continue
                earlier, reference = found
            if value < reference:
                notice |= self._fallen(did, register, earlier, Point(observed_at, seq, packed))
        return notice

    def _fallen(self, did: str, register: int, earlier: Point, later: Point) -> int:
        if self._history.exchanged(did, earlier.observed_at, later.observed_at):
            return _ROLLOVER
        name = _REGISTERS[register]
        low, high = cumulative(earlier.packed)[register], cumulative(later.packed)[register]
        raise Inconsistent(
            "register_backwards",
            f"{name} is {low} at {earlier.observed_at} and {high} at {later.observed_at}; "
            "a meter exchange or roll-over must be declared",
            name,
        )

    def _out_of_order(self, did: str, state: _State, point: Point) -> Judged:
        instant = point.observed_at
        near = state.points
        index = bisect_left(near, instant, key=_instant)
        if near[index].observed_at == instant:
            return _same_instant(near[index], point)
        if state.evicted and not _covers(state, point, index):
            near = self._neighbourhood(did, state, instant)
            index = bisect_left(near, instant, key=_instant)
            if near[index].observed_at == instant:
                return _same_instant(near[index], point)
        later = near[index]
        self._check_seq(near[index - 1] if index else None, point, later)
        notice = _BACKFILLED
        values = cumulative(point.packed)
        for register in (0, 1):
            value = values[register]
            if value is None:
                continue
            before = _nearest_with(near[:index], register)
            if before is not None and value < before[1]:
                notice |= self._fallen(did, register, before[0], point)
            after = _nearest_with(near[index:][::-1], register)
            if after is not None and after[1] < value:
                notice |= self._fallen(did, register, point, after[0])
        insort(state.points, point)
        state.seen |= point.packed[0] & _BOTH
        self._added.append((state, point))
        return _NOTICED[notice]

    @staticmethod
    def _check_seq(earlier: Point | None, point: Point, later: Point) -> None:
        if point.seq < 0:
            return
        if earlier is not None and earlier.seq >= 0 and point.seq <= earlier.seq:
            raise Inconsistent("replay", f"sequence number {point.seq} follows {earlier.seq} in time", "seq")
        if later.seq >= 0 and point.seq >= later.seq:
            raise Inconsistent("replay", f"sequence number {point.seq} precedes {later.seq} in time", "seq")

    def _neighbourhood(self, did: str, state: _State, instant: int) -> list[Point]:
        """Memory's points with the nearest stored ones around `instant`, ascending."""
        found = {*state.points, *state.floor}
        history = self._history
        same = history.nearest(did, instant, earlier=True)
        if same is not None:
            found.add(same)
        if same is not None and same.observed_at == instant:
            return sorted(found)  # nothing else counts
        position = history.position  # before the history's other answers: what comes to it meanwhile counts twice
        for earlier, register in ((True, 0), (True, 1), (False, None), (False, 0), (False, 1)):
            stored = history.nearest(did, instant, earlier=earlier, register=register)
            if stored is not None:
                found.add(stored)
        if position < state.evicted:
            try:
                self._index.extend(position, state.evicted)
            except Exception as error:
                raise HistoryUnavailable(f"the journal's tail cannot be read: {error}") from error
            found.update(self._index.around(did, instant))
        return sorted(found)


def _same_instant(known: Point, point: Point) -> Judged:
    if known.packed == point.packed:
        return _DUPLICATE
    raise Inconsistent(
        "equivocation", f"other registers of {point.observed_at} are in the journal already", "registers"
    )


def _covers(state: _State, point: Point, index: int) -> bool:
    """Whether memory alone holds all neighbours of a point that stands before the one at `index`."""
    if point.observed_at < state.solid:
        return False
    missing = point.packed[0] & _BOTH
    for earlier in state.points[:index]:
        missing &= ~earlier.packed[0]
    return not missing


def _nearest_with(points: Sequence[Point], register: int) -> tuple[Point, int] | None:
    """The last of `points` that has the cumulative register, and its value."""
    for point in reversed(points):
        value = cumulative(point.packed)[register]
        if value is not None:
            return point, value
    return None


def _instant(point: Point) -> int:
    return point[0]


def _newest_traces(traces: list[Trace]) -> list[Trace]:
    """What `_trimmed` keeps, of traces."""
    traces.sort(key=itemgetter(2))
    found = traces[-KEEP:]
    have = 0
    for trace in found:
        have |= trace[4][0] & _BOTH
    if have != _BOTH:
        for trace in reversed(traces[:-KEEP]):
            if trace[4][0] & _BOTH & ~have:
                have |= trace[4][0] & _BOTH
                found.append(trace)
    return found


def _trimmed(points: list[Point]) -> tuple[list[Point], tuple[Point, ...], bool]:
    """(the newest KEEP, older ones that a cumulative register needs, whether anything was dropped)."""
    kept, older = points[-KEEP:], points[:-KEEP]
    floor: set[Point] = set()
    for register in (0, 1):
        if any(cumulative(point.packed)[register] is not None for point in kept):
            continue
        for point in reversed(older):
            if cumulative(point.packed)[register] is not None:
                floor.add(point)
                break
    return kept, tuple(sorted(floor)), bool(older)
