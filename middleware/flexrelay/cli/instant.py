"""Instants as people write and read them."""

from datetime import UTC, datetime, timedelta
from typing import Final

from flexrelay.commissioning.errors import CommissioningError

_MS = timedelta(milliseconds=1)
_END_MS: Final = 253_402_300_800_000
"""The year 10000, which no ISO 8601 time of four digits reaches."""


def parse_instant(text: str) -> int:
    """UTC ms of an ISO 8601 time (without an offset: UTC) or of a number of ms. Raises CommissioningError."""
    try:
        instant = int(text) if text.isascii() and text.isdigit() else _parsed(text)
    except ValueError:
        instant = -1
    if not 0 <= instant < _END_MS:
        raise CommissioningError(f"{text!r} is no time: write 2016-05-20T12:00:00Z or UTC milliseconds")
    return instant


def _parsed(text: str) -> int:
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.fromtimestamp(0, UTC)) // _MS


def iso(instant_ms: int | None) -> str:
    """UTC with seconds; "" for none."""
    if instant_ms is None:
        return ""
    return datetime.fromtimestamp(instant_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
