"""Calendar days: bounds of ISPs and the ISP that a register reading closes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flexrelay_schemas.intervals import CalendarDay

START = 1463695200000  # 2016-05-20 00:00 in Berlin
DAY = CalendarDay(date="2016-05-20", start=START, isps=96, isp_seconds=900, working=True)
DAYS = st.builds(
    CalendarDay,
    date=st.just("2016-05-20"),
    start=st.integers(0, 2**41),
    isps=st.integers(1, 1500),
    isp_seconds=st.sampled_from([4, 60, 300, 900, 1800, 3600, 86_400]),
    working=st.booleans(),
)


def test_a_known_day() -> None:
    assert DAY.bounds(1) == (START, START + 900_000)
    assert DAY.bounds(96) == (DAY.end - 900_000, DAY.end)
    assert DAY.end - START == 86_400_000
    assert DAY.isp_closed_by(START + 1) == 1
    assert DAY.isp_closed_by(START + 900_000) == 1
    assert DAY.isp_closed_by(START + 900_001) == 2
    assert DAY.isp_closed_by(DAY.end) == 96


@given(DAYS, st.integers(0, 10**6))
def test_isps_tile_the_day(day: CalendarDay, pick: int) -> None:
    isp = 1 + pick % day.isps
    start, end = day.bounds(isp)
    assert end - start == day.isp_seconds * 1000
    assert start == (day.start if isp == 1 else day.bounds(isp - 1)[1])
    assert (end == day.end) == (isp == day.isps)


@given(DAYS, st.integers(1, 10**12))
def test_a_reading_closes_the_isp_whose_half_open_interval_holds_it(day: CalendarDay, offset: int) -> None:
    instant = day.start + 1 + offset % (day.end - day.start)
    start, end = day.bounds(day.isp_closed_by(instant))
    assert start < instant <= end


@pytest.mark.parametrize("isp", [0, -1, 97, 10**9])
def test_isps_outside_the_day(isp: int) -> None:
    with pytest.raises(ValueError, match=f"ISP {isp} is not in 2016-05-20, which has 96"):
        DAY.bounds(isp)


@pytest.mark.parametrize("instant", [START, START - 1, DAY.end + 1, 0])
def test_the_instant_of_midnight_belongs_to_the_day_before(instant: int) -> None:
    with pytest.raises(ValueError, match=f"{instant} is not in 2016-05-20"):
        DAY.isp_closed_by(instant)


@pytest.mark.parametrize(
    "change",
    [
        {"date": "2016-5-20"},
        {"date": "20160520"},
        {"date": "2016-13-01"},
        {"date": "2016-00-10"},
        {"date": "2016-01-32"},
        {"date": "2016-05-20\n"},
        {"date": "٢٠١٦-٠٥-٢٠"},
        {"isps": 0},
        {"isps": 1501},
        {"isp_seconds": 3},
        {"working": 1},
        {"start": -1},
        {"start": 1.0},
        {"zone": "Europe/Berlin"},
    ],
)
def test_what_is_no_calendar_day(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CalendarDay.model_validate({**DAY.model_dump(), **change})
