"""Public holidays of all German states, for calendars that want them: working days are a term of market products."""

from datetime import date, timedelta

_FIXED = ((1, 1), (5, 1), (10, 3), (12, 25), (12, 26))
_FROM_EASTER = (-2, 1, 39, 50)
"""Good Friday, Easter Monday, Ascension, Whit Monday: days from Easter Sunday."""


def german_holidays(first: date, last: date) -> frozenset[date]:
    """Those of the years of `first` to `last`."""
    found: set[date] = set()
    for year in range(first.year, last.year + 1):
        easter = easter_sunday(year)
        found.update(date(year, month, day) for month, day in _FIXED)
        found.update(easter + timedelta(days=days) for days in _FROM_EASTER)
    return frozenset(found)


def easter_sunday(year: int) -> date:
    """Gregorian Easter: the Sunday after the first ecclesiastical full moon of spring (Gauss and Lichtenberg)."""
    century = year // 100
    moon = 15 + (3 * century + 3) // 4 - (8 * century + 13) // 25
    sun = 2 - (3 * century + 3) // 4
    golden = year % 19
    seed = (19 * golden + moon) % 30
    correction = (seed + golden // 11) // 29
    full_moon = 21 + seed - correction
    first_sunday = 7 - (year + year // 4 + sun) % 7
    distance = 7 - (full_moon - first_sunday) % 7
    return date(year, 3, 1) + timedelta(days=full_moon + distance - 1)
