"""Instants as people write them."""

import pytest

from flexrelay.cli.instant import iso, parse_instant
from flexrelay.commissioning import CommissioningError


@pytest.mark.parametrize(
    "text", ["1463745600000", "2016-05-20T12:00:00Z", "2016-05-20T14:00:00+02:00", "2016-05-20T12:00:00"]
)
def test_forms(text: str) -> None:
    assert parse_instant(text) == 1463745600000
    assert iso(parse_instant(text)) == "2016-05-20T12:00:00Z"


def test_milliseconds_are_kept() -> None:
    assert parse_instant("1970-01-01T00:00:00.001Z") == 1


@pytest.mark.parametrize(
    "text",
    ["", "noon", "2016-13-01", "-5", "１２", "99999999999999999999", "253402300800000", "9" * 5000, "1969-12-31"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CommissioningError, match="is no time"):
        parse_instant(text)


def test_the_last_one_can_be_written() -> None:
    assert iso(parse_instant("253402300799999")) == "9999-12-31T23:59:59Z"


def test_none_is_empty() -> None:
    assert iso(None) == ""
