"""The published calendar, above all the days on which clocks change."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay.market.calendar import GERMAN_HOLIDAYS_2016, days

BERLIN = "Europe/Berlin"


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize(
    ("day", "isps", "start"),
    [
        (date(2016, 3, 26), 96, "2016-03-25T23:00:00+00:00"),
        (date(2016, 3, 27), 92, "2016-03-26T23:00:00+00:00"),
        (date(2016, 3, 28), 96, "2016-03-27T22:00:00+00:00"),
        (date(2016, 10, 29), 96, "2016-10-28T22:00:00+00:00"),
        (date(2016, 10, 30), 100, "2016-10-29T22:00:00+00:00"),
        (date(2016, 10, 31), 96, "2016-10-30T23:00:00+00:00"),
    ],
)
def test_days_around_the_clock_changes(day: date, isps: int, start: str) -> None:
    (result,) = days(BERLIN, day, day)
    assert (result.isps, result.start, result.isp_seconds) == (isps, _ms(start), 900)


def test_hourly_isps_follow_the_clock_too() -> None:
    spring = days(BERLIN, date(2016, 3, 27), date(2016, 3, 27), isp_seconds=3600)
    autumn = days(BERLIN, date(2016, 10, 30), date(2016, 10, 30), isp_seconds=3600)
    assert (spring[0].isps, autumn[0].isps) == (23, 25)


def test_a_whole_year_has_no_gap_and_the_right_length() -> None:
    year = days(BERLIN, date(2016, 1, 1), date(2016, 12, 31), GERMAN_HOLIDAYS_2016)
    assert len(year) == 366
    assert all(day.end == following.start for day, following in pairwise(year))
    assert sum(day.isps for day in year) == 366 * 96
    assert sum(day.working for day in year) == 254  # 261 weekdays, 7 holidays on weekdays


def test_the_demo_week_knows_whit_monday() -> None:
    week = days(BERLIN, date(2016, 5, 12), date(2016, 5, 21), GERMAN_HOLIDAYS_2016)
    assert [day.date for day in week if day.working] == [f"2016-05-{d}" for d in (12, 13, 17, 18, 19, 20)]


def test_half_hour_clock_change_and_midnight_change() -> None:
    lord_howe = days("Australia/Lord_Howe", date(2016, 4, 3), date(2016, 4, 3))
    assert lord_howe[0].isps == 98
    santiago = days("America/Santiago", date(2016, 8, 14), date(2016, 8, 14))  # springs from 24:00 to 01:00
    assert santiago[0].isps == 92
    assert santiago[0].start == _ms("2016-08-14T04:00:00+00:00")


@pytest.mark.parametrize(
    ("zone", "first", "last", "seconds", "message"),
    [
        ("Europe/Berlinn", date(2016, 1, 1), date(2016, 1, 1), 900, "unknown"),
        ("../etc/passwd", date(2016, 1, 1), date(2016, 1, 1), 900, "unknown"),
        (BERLIN, date(2016, 1, 2), date(2016, 1, 1), 900, "before"),
        (BERLIN, date(2016, 1, 1), date(2016, 1, 1), 7000, "do not fill"),
        (BERLIN, date(2016, 1, 1), date(2016, 1, 1), 0, "at least a second"),
    ],
)
def test_what_it_refuses(zone: str, first: date, last: date, seconds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        days(zone, first, last, isp_seconds=seconds)


@given(
    st.sampled_from([BERLIN, "Europe/London", "America/New_York", "Asia/Kolkata", "UTC", "Australia/Sydney"]),
    st.dates(date(1990, 1, 1), date(2036, 12, 31)),
    st.integers(0, 100),
)
def test_every_isp_starts_on_its_local_date(zone: str, day: date, where: int) -> None:
    (result,) = days(zone, day, day)
    isp = 1 + where * (result.isps - 1) // 100
    start, end = result.bounds(isp)
    for instant in (start, end - 1):
        local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)
        assert local.astimezone(ZoneInfo(zone)).date() == day
    assert result.isp_closed_by(end) == isp
    assert result.isps in (92, 96, 100)
