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


@pytest.mark.parametrize("text", ["", "noon", "2016-13-01", "-5", "１２"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CommissioningError, match="is no time"):
        parse_instant(text)


def test_none_is_empty() -> None:
    assert iso(None) == ""
