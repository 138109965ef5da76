"""Baselines: what a connection would have drawn without the order. Joules per ISP, positive = withdrawal."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prognosis:
    """A revision of a D-prognosis: mean power per ISP and the orders that it already contains."""

    revision: int
    powers_w: tuple[int, ...]
    orders: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MeteredDay:
    """A past day of the same connection. `event`: flexibility was activated on it, so it says nothing about habits."""

    date: str
    energies_j: tuple[int, ...]
    working: bool
    event: bool


def prognosis(revisions: Sequence[Prognosis], revision: int, order_id: str, isp_seconds: int) -> tuple[int, ...]:
    """The nominated baseline: the revision that the order refers to. Raises ValueError when there is none, or when it
    contains the order already (delivery would be measured against itself)."""
    for candidate in revisions:
        if candidate.revision == revision:
            if order_id in candidate.orders:
                raise ValueError(f"revision {revision} of the D-prognosis contains order {order_id!r} already")
            return tuple(power * isp_seconds for power in candidate.powers_w)
    raise ValueError(f"there is no revision {revision} of the D-prognosis")


def mean_of(days: Sequence[MeteredDay], date: str, isps: int, *, count: int = 5) -> tuple[int, ...]:
    """The mean per ISP of the last `count` days before `date` that were working days without an event.

    Days with another number of ISPs (daylight saving) are left out. Means are floored. Raises ValueError when there are
    fewer than `count` such days.
    """
    return _mean(_eligible(days, date, isps, count), count)


def high_of(
    days: Sequence[MeteredDay], date: str, isps: int, window: tuple[int, int], *, count: int = 5, among: int = 10
) -> tuple[int, ...]:
    """Like `mean_of`, over the `count` days with the most energy in ISPs `window` (first, last; from 1) among the last
    `among` eligible ones; equal days go by date, the later first."""
    first, last = window
    if not 1 <= first <= last <= isps:
        raise ValueError(f"ISPs {first} to {last} are not in a day of {isps}")
    if not 0 < count <= among:
        raise ValueError(f"{count} days cannot be chosen among {among}")
    recent = _eligible(days, date, isps, among)
    recent.sort(key=lambda day: (sum(day.energies_j[first - 1 : last]), day.date), reverse=True)
    return _mean(recent[:count], count)


def doubtful(nominated_j: Sequence[int], historical_j: Sequence[int], tolerance_permille: int) -> tuple[int, ...]:
    """ISPs (from 1) in which a nomination differs from history by more than this share of history's largest value."""
    room = max((abs(value) for value in historical_j), default=0) * tolerance_permille
    pairs = zip(nominated_j, historical_j, strict=True)
    return tuple(isp for isp, (said, was) in enumerate(pairs, 1) if abs(said - was) * 1000 > room)


def _eligible(days: Sequence[MeteredDay], date: str, isps: int, count: int) -> list[MeteredDay]:
    if count < 1:
        raise ValueError("a historical baseline needs at least one day")
    dates = [day.date for day in days]
    if len(set(dates)) != len(dates):
        raise ValueError("a date stands twice in the history")
    chosen = [day for day in days if day.date < date and day.working and not day.event and len(day.energies_j) == isps]
    if len(chosen) < count:
        raise ValueError(f"there are {len(chosen)} usable days before {date}, the baseline needs {count}")
    chosen.sort(key=lambda day: day.date)
    return chosen[-count:]


def _mean(days: Sequence[MeteredDay], count: int) -> tuple[int, ...]:
    return tuple(sum(column) // count for column in zip(*(day.energies_j for day in days), strict=True))
