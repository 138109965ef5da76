"""What all formats make of a payload: records."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

Path = tuple[int, ...]
"""Object, object instance, resource, resource instance: as many as are given."""

Value = bool | int | float | Decimal | str | bytes | None

MAX_RECORDS: Final = 2_000
"""In one payload."""


class Record(NamedTuple):
    """`value` is bytes where the format does not tell its type (TLV); `time_s` is UTC seconds, or None for now;
    `unit` is SenML's, "" without one."""

    path: Path
    value: Value
    time_s: float | None = None
    unit: str = ""


class FormatError(ValueError):
    """The payload is not of its format. `reason` is a short snake_case code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def checked(value: Value, path: Path) -> Value:
    """Raises FormatError for a whole number of more than 64 bits, LwM2M's largest: CBOR knows ones that Python does not
    even write out."""
    if type(value) is int and value.bit_length() > 64:
        raise FormatError("out_of_range", f"{path_text(path)} is an integer of {value.bit_length()} bits")
    return value


def parse_path(text: str) -> Path:
    """(3305, 0, 5800) of "/3305/0/5800". Raises FormatError."""
    parts = text.split("/")
    if parts[0] or len(parts) > 5:
        raise FormatError("bad_path", f"{text[:80]!r} is no path of an LwM2M resource")
    if text == "/":
        return ()
    path = []
    for part in parts[1:]:
        if not (part.isascii() and part.isdigit() and len(part) <= 5):
            raise FormatError("bad_path", f"{text[:80]!r} is no path of an LwM2M resource")
        number = int(part)
        if number > 65_535:
            raise FormatError("bad_path", f"{number} is no identifier: at most 65535")
        path.append(number)
    return tuple(path)


def path_text(path: Sequence[int]) -> str:
    return "/" + "/".join(map(str, path))
