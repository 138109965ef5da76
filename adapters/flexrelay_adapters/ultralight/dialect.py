"""Ultralight 2.0: `t|15|k|abc`, groups with #, a time before a group, `device@command|…`. Pure."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from flexrelay_adapters.iotagent.dialect import Result, Told
from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import MAX_ITEMS
from flexrelay_sdk.mapping.conversion import MAX_DIGITS

_NUMBER: Final = re.compile(r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]{1,4})?")
_RESULT: Final = re.compile(rb"[^@|#]+@[^@|#]+\|")


class Ultralight:
    """`Dialect`."""

    protocol = "ultralight"
    level = "ul"
    path = "/iot/d"
    media_type = "text/plain"

    def groups(self, payload: bytes) -> list[dict[str, Any]]:
        """Raises DecodeError: not_utf8, not_ultralight, duplicate_name."""
        text = _text(payload)
        return [_group(group) for group in text.split("#")] if "#" in text else [_group(text)]

    def value(self, payload: bytes) -> Any:
        return _value(_text(payload).strip())

    def most_groups(self, payload: bytes) -> int:
        return min(payload.count(b"#") + 1, MAX_ITEMS)

    def is_result(self, payload: bytes) -> bool:
        return _RESULT.match(payload) is not None

    def results(self, payload: bytes) -> list[Result]:
        """`device@command|result`; the device is whom the transport names."""
        text = payload.decode()
        head, sign, result = text.partition("|")
        _, at, command = head.partition("@")
        if not sign or not at or not command:
            raise ValueError(f"not <device>@<command>|<result>: {text[:80]!r}")
        return [Result(command, result.strip())]

    def command(self, device: str, name: str, told: Told) -> bytes:
        if isinstance(told, Mapping):
            body = "|".join(f"{key}={value}" for key, value in told.items())
        else:
            body = str(told) if isinstance(told, int) else f"{told:f}"
        return f"{device}@{name}|{body}".encode()

    def together(self, commands: Sequence[bytes]) -> bytes:
        return b"#".join(commands)


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not_utf8", f"invalid byte at {error.start}") from None


def _group(text: str) -> dict[str, Any]:
    fields = text.strip().split("|")
    start = len(fields) & 1  # an odd one: the time stands first
    names = fields[start::2]
    if not names or "" in names:
        raise DecodeError("not_ultralight", "measures are name|value|name|value, with a time before them or not")
    group = dict(zip(names, map(_value, fields[start + 1 :: 2]), strict=True))
    if len(group) < len(names):
        raise DecodeError("duplicate_name", "a name stands twice in one group")
    if start:
        group.setdefault("TimeInstant", fields[0])
    return group


def _value(text: str) -> int | Decimal | str:
    """A number where it reads as one: Ultralight has no types."""
    if len(text) <= MAX_DIGITS and text.isascii():
        if text.isdigit():
            return int(text)
        if _NUMBER.fullmatch(text):
            return Decimal(text) if "." in text or "e" in text or "E" in text else int(text)
    return text
