"""The frame that is journaled: one DataSetMessage as it came, and before it what decodes it alone, years later.

    0x01 · kind (M message, N undivided) · shift u8 · missing u16 · length of the facts u16 · facts · the bytes

`facts` is canonical JSON of what the writer's metadata has told of the mapped fields: {"major": …, "types": {field:
built-in type}, "units": {field: unit}}, empty where nothing is known. `missing` counts DataSetMessages that did not
come before this one, as the sequence numbers tell. `shift` (ms) is added to the instant: 0 but for a reading whose
instant had been taken by other values of the same writer. A NetworkMessage that cannot be divided (N) is kept whole.
"""

import json
import struct
from functools import lru_cache
from typing import Final, NamedTuple

from flexrelay_sdk import DecodeError

_HEAD: Final = struct.Struct(">BcBHH")
_VERSION: Final = 1
MESSAGE, UNDIVIDED = b"M", b"N"
MAX_FACTS_BYTES: Final = 0xFFFF
MAX_SHIFT_MS: Final = 0xFF
_MOST: Final = 0xFFFF


class Facts(NamedTuple):
    """Of the mapped fields. `major` is the configuration's version that they are of, None when that is not known."""

    major: int | None
    types: dict[str, int]
    units: dict[str, str]


NO_FACTS: Final = Facts(None, {}, {})


class Envelope(NamedTuple):
    divided: bool
    shift_ms: int
    missing: int
    facts: Facts
    raw: bytes


def framed(raw: bytes, facts: bytes = b"", *, missing: int = 0, shift_ms: int = 0, kind: bytes = MESSAGE) -> bytes:
    return _HEAD.pack(_VERSION, kind, shift_ms, min(missing, _MOST), len(facts)) + facts + raw


def undivided(payload: bytes) -> bytes:
    return framed(payload, kind=UNDIVIDED)


def open_frame(frame: bytes) -> Envelope:
    """Raises DecodeError("bad_envelope")."""
    if len(frame) < _HEAD.size or frame[0] != _VERSION:
        raise DecodeError("bad_envelope", "not a frame of this adapter")
    _, kind, shift_ms, missing, length = _HEAD.unpack_from(frame)
    end = _HEAD.size + length
    if len(frame) < end or kind not in (MESSAGE, UNDIVIDED):
        raise DecodeError("bad_envelope", "the frame is cut off, or of an unknown kind")
    return Envelope(kind == MESSAGE, shift_ms, missing, facts_of(frame[_HEAD.size : end]), frame[end:])


@lru_cache(maxsize=4096)
def facts_of(text: bytes) -> Facts:
    """Raises DecodeError("bad_envelope")."""
    if not text:
        return NO_FACTS
    try:
        found = json.loads(text)
        facts = Facts(found.get("major"), dict(found.get("types", {})), dict(found.get("units", {})))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError("bad_envelope", f"the facts cannot be read: {str(error)[:100]}") from None
    sound = all(type(kind) is int for kind in facts.types.values())
    if not sound or any(type(unit) is not str for unit in facts.units.values()):
        raise DecodeError("bad_envelope", "the facts are not types and units of fields")
    return facts
