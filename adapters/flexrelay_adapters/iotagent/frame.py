"""The frame that is journaled: the payload as it came, and before it what came beside it, where something did.

    0x01 · length of the context u16 · context · payload

The context is canonical JSON: `a` the attribute that the topic or path names, `t` the time that the request names, `n`
object id → attribute name as the device was provisioned; or `e` alone, why that could not be kept. No payload of
measures begins with 0x01.
"""

import json
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from flexrelay_schemas.canonical import canonical
from flexrelay_sdk import DecodeError

_HEAD: Final = struct.Struct(">BH")
_VERSION: Final = 1
_NONE: Final[Mapping[str, Any]] = {}
MAX_ATTRIBUTE: Final = 250
"""Characters of the attribute that a topic or path names, as of one that is provisioned."""


def framed(payload: bytes, *, attribute: str = "", time: str = "", names: Mapping[str, str] = _NONE) -> bytes:
    """Where the context is longer than 64 KiB the frame becomes a dead letter that says so."""
    if not attribute and not time and not names and not payload.startswith(b"\1"):
        return payload
    context = {"a": attribute, "t": time, "n": dict(names)}
    text = canonical({key: value for key, value in context.items() if value})
    if len(text) > 0xFFFF:
        text = canonical({"e": f"the attributes of one device take {len(text)} bytes, at most 65535 are kept"})
    return _HEAD.pack(_VERSION, len(text)) + text + payload


def split(frame: bytes) -> tuple[Mapping[str, Any], bytes]:
    """(Context, payload). Raises DecodeError: bad_envelope."""
    if not frame.startswith(b"\1"):
        return _NONE, frame
    if len(frame) < _HEAD.size or len(frame) < (end := _HEAD.size + _HEAD.unpack_from(frame)[1]):
        raise DecodeError("bad_envelope", "the frame is cut off")
    return _context(frame[_HEAD.size : end]), frame[end:]


@lru_cache(maxsize=4096)
def _context(text: bytes) -> Mapping[str, Any]:
    try:
        context = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError("bad_envelope", f"the context cannot be read: {str(error)[:100]}") from None
    texts = {"a": str, "t": str, "n": dict, "e": str}
    if type(context) is not dict or any(type(value) is not texts.get(key) for key, value in context.items()):
        raise DecodeError("bad_envelope", "the context is not what stands before a payload")
    if any(type(name) is not str for name in context.get("n", _NONE).values()):
        raise DecodeError("bad_envelope", "the names in the context are no texts")
    if "e" in context:
        raise DecodeError("bad_envelope", context["e"])
    return context
