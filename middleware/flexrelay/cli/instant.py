"""Instants as people write and read them."""

from datetime import UTC, datetime, timedelta

from flexrelay.commissioning.errors import CommissioningError

_MS = timedelta(milliseconds=1)


def parse_instant(text: str) -> int:
    """UTC ms of an ISO 8601 time (without an offset: UTC) or of a number of ms. Raises CommissioningError."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommissioningError(f"{text!r} is no time: write 2016-05-20T12:00:00Z or UTC milliseconds") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.fromtimestamp(0, UTC)) // _MS


def iso(instant_ms: int | None) -> str:
    """UTC with seconds; "" for none."""
    if instant_ms is None:
        return ""
    return datetime.fromtimestamp(instant_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
