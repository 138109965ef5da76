"""German holidays against the list that the market's calendar states for 2016, and Easter against known years."""

from datetime import date

import pytest

from flexrelay.commissioning.holidays import easter_sunday, german_holidays
from flexrelay.market.calendar import GERMAN_HOLIDAYS_2016


def test_2016() -> None:
    assert german_holidays(date(2016, 5, 1), date(2016, 5, 2)) == GERMAN_HOLIDAYS_2016


def test_a_range_over_new_year_has_both_years() -> None:
    found = german_holidays(date(2026, 12, 1), date(2027, 1, 31))
    assert {date(2026, 12, 26), date(2027, 1, 1)} <= found


@pytest.mark.parametrize(
    "sunday",
    [date(1954, 4, 18), date(1981, 4, 19), date(2000, 4, 23), date(2008, 3, 23), date(2026, 4, 5), date(2038, 4, 25)],
)
def test_easter(sunday: date) -> None:
    assert easter_sunday(sunday.year) == sunday
    assert sunday.weekday() == 6
