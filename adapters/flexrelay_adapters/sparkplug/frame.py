"""The frame that is journaled: the exact payload, and before it what decodes it alone, years later.

    0x01 · kind (B birth, D data) · length of the names u16 · names · payload

A payload after the birth names its metrics by aliases, and leaves the data type out. `names` is JSON [[alias or null,
name, data type], …], ordered by name, of the metrics that the mapping reads, as the newest birth has told them; a birth
has none. No payload begins with 0x01 (it would be field 0).
"""

import json
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from flexrelay_sdk import DecodeError

_HEAD: Final = struct.Struct(">BcH")
_VERSION: Final = 1
BIRTH, DATA = b"B", b"D"
MAX_NAMES_BYTES: Final = 0xFFFF


class Told(NamedTuple):
    """A metric as its birth has told it."""

    alias: int | None
    name: str
    datatype: int


class Names(NamedTuple):
    """name → data type, alias → name."""

    types: dict[str, int]
    aliases: dict[int, str]


NO_NAMES: Final = Names({}, {})


def head(kind: bytes, told: Iterable[Told] = ()) -> bytes:
    """What stands before a payload. Raises ValueError when the names are longer than 64 KiB."""
    listed = sorted(told, key=lambda each: each.name) if kind == DATA else []
    # not canonical JSON, which has no integers of 64 bits: an alias may be one
    names = json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode() if kind == DATA else b""
    if len(names) > MAX_NAMES_BYTES:
        raise ValueError(f"the names of one device take {len(names)} bytes, at most {MAX_NAMES_BYTES} are kept")
    return _HEAD.pack(_VERSION, kind, len(names)) + names


def split(frame: bytes) -> tuple[bool, Names, bytes]:
    """(Whether it is a birth, its names, the payload). Raises DecodeError: bad_envelope."""
    if len(frame) < _HEAD.size or frame[0] != _VERSION:
        raise DecodeError("bad_envelope", "not a frame of this adapter")
    _, kind, length = _HEAD.unpack_from(frame)
    end = _HEAD.size + length
    if len(frame) < end or kind not in (BIRTH, DATA):
        raise DecodeError("bad_envelope", "the frame is cut off, or neither birth nor data")
    return kind == BIRTH, _names(frame[_HEAD.size : end]) if length else NO_NAMES, frame[end:]


@lru_cache(maxsize=4096)
def _names(text: bytes) -> Names:
    try:
        told = [Told(*each) for each in json.loads(text)]
        types = {each.name: each.datatype for each in told}
        aliases = {each.alias: each.name for each in told if each.alias is not None}
        sound = all(type(each.name) is str and type(each.datatype) is int for each in told)
    except (ValueError, TypeError, RecursionError) as error:
        raise DecodeError("bad_envelope", f"the names cannot be read: {str(error)[:100]}") from None
    if not sound or any(type(alias) is not int for alias in aliases):
        raise DecodeError("bad_envelope", "the names are not [alias, name, data type]")
    return Names(types, aliases)
