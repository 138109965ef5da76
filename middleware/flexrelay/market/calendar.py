"""The market calendar as it is published on the ledger: local dates of a time zone as UTC starts and numbers of ISPs.

Time-zone data is used here, once, by whoever publishes; contracts read the published days.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flexrelay_schemas.intervals import CalendarDay

GERMAN_HOLIDAYS_2016: Final = frozenset(
    {
        date(2016, 1, 1),  # New Year
        date(2016, 3, 25),  # Good Friday
        date(2016, 3, 28),  # Easter Monday
        date(2016, 5, 1),  # Labour Day
        date(2016, 5, 5),  # Ascension
        date(2016, 5, 16),  # Whit Monday
        date(2016, 10, 3),  # German Unity
        date(2016, 12, 25),  # Christmas Day
        date(2016, 12, 26),  # Boxing Day
    }
)
"""Public holidays of all German states."""

_SATURDAY = 5


def days(
    zone: str, first: date, last: date, holidays: frozenset[date] = frozenset(), isp_seconds: int = 900
) -> list[CalendarDay]:
    """The days `first` to `last`, both included, of the IANA time zone `zone`.

    A day runs from local midnight to local midnight, so it has 92, 96 or 100 ISPs of 15 minutes in zones whose clocks
    change by an hour. Raises ValueError for an unknown zone, `last` before `first`, or a day that ISPs do not fill.
    """
    try:
        info = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"time zone {zone[:80]!r} is unknown; use an IANA name such as Europe/Berlin") from None
    if last < first:
        raise ValueError(f"last day {last} is before first day {first}")
    if isp_seconds < 1:
        raise ValueError(f"isp_seconds is {isp_seconds}; an ISP lasts at least a second")
    result = []
    for offset in range((last - first).days + 1):
        day = first + timedelta(days=offset)
        start, end = _midnight(day, info), _midnight(day + timedelta(days=1), info)
        isps, rest = divmod(end - start, isp_seconds * 1000)
        if rest:
            raise ValueError(
                f"{day} in {zone} lasts {(end - start) // 1000} s, which ISPs of {isp_seconds} s do not fill"
            )
        working = day.weekday() < _SATURDAY and day not in holidays
        result.append(
            CalendarDay(date=day.isoformat(), start=start, isps=isps, isp_seconds=isp_seconds, working=working)
        )
    return result


def _midnight(day: date, zone: ZoneInfo) -> int:
    """UTC ms of the first instant of a local date (after the gap where clocks spring forward at midnight)."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    instant = local.astimezone(UTC)
    return int(instant.timestamp()) * 1000
