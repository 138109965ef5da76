"""The elements of a JSON list as the exact bytes in which they came, so that each becomes a frame of its own."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from flexrelay_sdk import DecodeError

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder(parse_float=str, parse_int=str).raw_decode


def elements(body: bytes, steps: Sequence[Any], most: int) -> list[bytes]:
    """The elements of the list at `steps` (member names and indexes). Raises DecodeError: not_utf8, not_json,
    bad_items (no list there, none or more than `most` in it)."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not_utf8", f"invalid byte at {error.start}") from None
    try:
        _, end = _scan(text, _skip(text, 0))
        if _skip(text, end) != len(text):
            raise DecodeError("not_json", f"more than one value: something stands at {end}")
        at = _skip(text, 0)
        for step in steps:
            at = _inside(text, at, step)
        if text[at] != "[":
            raise DecodeError("bad_items", "there is no list of readings")
        extents = _items(text, at, most)
    except (RecursionError, IndexError, ValueError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError("not_json", "nested too deeply" if isinstance(error, RecursionError) else "no JSON") from None
    if not 1 <= len(extents) <= most:
        raise DecodeError("bad_items", f"expected 1 to {most} readings")
    return [text[start:end].encode() for start, end in extents]


def lines(body: bytes, most: int) -> list[bytes]:
    """The lines of newline-delimited JSON. Raises DecodeError("bad_items")."""
    found = [line for line in body.split(b"\n") if line.strip()]
    if not 1 <= len(found) <= most:
        raise DecodeError("bad_items", f"expected 1 to {most} readings")
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # it matches nothing, too
    return match.end()


def _items(text: str, at: int, most: int) -> list[tuple[int, int]]:
    """The extents of a list's values; one more than `most` at the most. The text is known to be JSON."""
    found: list[tuple[int, int]] = []
    at = _skip(text, at + 1)
    while text[at] != "]" and len(found) <= most:
        _, end = _scan(text, at)
        found.append((at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _inside(text: str, at: int, step: Any) -> int:
    """Where the member `step` of the value at `at` begins."""
    if text[at] == "[" and str(step).isdigit():
        extents = _items(text, at, int(step) + 1)
        if int(step) < len(extents):
            return extents[int(step)][0]
    elif text[at] == "{":
        at = _skip(text, at + 1)
        while text[at] != "}":
            name, end = _scan(text, at)
            at = _skip(text, _skip(text, end) + 1)
            if name == step:
                return at
            _, end = _scan(text, at)
            at = _skip(text, end)
            if text[at] == ",":
                at = _skip(text, at + 1)
    raise DecodeError("bad_items", f"there is no {str(step)[:40]!r}")
