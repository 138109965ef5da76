"""Instants to market intervals, from the days that the ledger publishes."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from flexrelay_schemas.intervals import CalendarDay


class Calendar:
    """The published days of the market. An instant belongs to the ISP whose (start, end] holds it."""

    def __init__(self, days: Iterable[CalendarDay] = ()) -> None:
        self._days: dict[int, CalendarDay] = {}
        self._ends: list[int] = []
        for day in days:
            self.add(day)

    def add(self, day: CalendarDay) -> None:
        """Take over a day; the same one again changes nothing."""
        if day.end not in self._days:
            insort(self._ends, day.end)
        self._days[day.end] = day

    def day(self, date: str) -> CalendarDay | None:
        """The published day of a local date."""
        return next((day for day in self._days.values() if day.date == date), None)

    def interval(self, instant: int) -> tuple[CalendarDay, int] | None:
        """(day, ISP) of an instant in UTC ms; None when its day is not published."""
        index = bisect_left(self._ends, instant)
        if index == len(self._ends):
            return None
        day = self._days[self._ends[index]]
        return (day, day.isp_closed_by(instant)) if instant > day.start else None

    def ended_by(self, instant: int) -> int:
        """The end of the last published ISP that has ended at `instant` (UTC ms); -1 when none has."""
        index = bisect_right(self._ends, instant)
        if index < len(self._ends):
            day = self._days[self._ends[index]]
            if isps := max(instant - day.start, 0) // (day.isp_seconds * 1000):
                return day.bounds(isps)[1]
        return self._ends[index - 1] if index else -1
