"""The source's own time in the forms that sources write it, as UTC milliseconds."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_sdk.frame import DecodeError
from flexrelay_sdk.mapping.conversion import half_even, scaled, shortest

TimeForm = Literal["s", "ms", "us", "ns", "iso8601", "iso8601_utc"]
"""Counts since 1970 UTC, or ISO 8601 text: with an offset; or as UTC where it names none."""

_PER_MS: Final = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def instant_ms(value: Any, form: TimeForm, place: str = "") -> int:
    """UTC milliseconds. Whole numbers; decimals in seconds only. Raises DecodeError("bad_time")."""
    ms: int | None = None
    kind = type(value)
    if form == "ms":
        ms = value if kind is int else None
    elif form in _PER_MS:
        factor, divisor = _PER_MS[form]
        if kind is int:
            ms = value * factor if divisor == 1 else half_even(value, divisor)
        elif form == "s" and (kind is Decimal or kind is float):
            ms = scaled(value if kind is Decimal else shortest(value, place), factor, place)
    elif kind is str:
        ms = _iso_ms(value, place, naive_is_utc=form == "iso8601_utc")
    elif kind is datetime:
        ms = _ms_of(value, place, naive_is_utc=form == "iso8601_utc")
    if ms is None:
        raise DecodeError("bad_time", f"expected a time as {form}", place)
    if not 0 < ms <= MAX_INTEGER:
        raise DecodeError("bad_time", "time out of range", place)
    return ms


def _iso_ms(text: str, place: str, naive_is_utc: bool) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise DecodeError("bad_time", "not an ISO 8601 time", place) from None
    return _ms_of(instant, place, naive_is_utc)


def _ms_of(instant: datetime, place: str, naive_is_utc: bool) -> int:
    if instant.tzinfo is None:
        if not naive_is_utc:
            raise DecodeError("bad_time", "ISO 8601 time without an offset", place)
        instant = instant.replace(tzinfo=UTC)
    try:
        return (instant - _EPOCH) // _MS
    except OverflowError:
        raise DecodeError("bad_time", "not an ISO 8601 time", place) from None
