"""Plain JSON payloads by a declarative mapping: exact integer arithmetic, no floats, and DecodeError for all else."""

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from flexrelay_sdk.frame import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping.config import Mapping
from flexrelay_sdk.mapping.conversion import MAX_DIGITS
from flexrelay_sdk.mapping.mapper import Mapper

_WHOLE = frozenset({int, str, bool, type(None)})


class MappingCodec:
    """`Codec` for JSON payloads by one `Mapping`. Measurements name no DID: the transport's identity counts."""

    def __init__(self, mapping: Mapping) -> None:
        self._measurements = Mapper(mapping).measurements

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: not_utf8, not_json, missing_field, not_a_number, out_of_range, bad_time, …"""
        return Decoded(self._measurements(parse_json(frame.payload), frame.received_at))


def parse_json(payload: bytes) -> Any:
    """The JSON value; numbers are int and Decimal. Raises DecodeError: not_utf8, not_json, not_a_number,
    duplicate_name."""
    try:
        flat = orjson.loads(payload)
        # One object of whole numbers and texts, with as many names as colons after a quote, and no colon that stands
        # apart from its name: no name stands twice, and nothing in it needs exact decimals. All else goes the long way.
        if (
            type(flat) is dict
            and payload.count(b'":') == len(flat)
            and _WHOLE.issuperset(map(type, flat.values()))
            and not (b" :" in payload or b"\n:" in payload or b"\t:" in payload or b"\r:" in payload)
        ):
            return flat
    except orjson.JSONDecodeError:
        pass
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not_utf8", f"invalid byte at {error.start}") from None
    try:
        value, end = _decoder.raw_decode(text)
        if end == len(text):
            return value
    except DecodeError:
        raise
    except (ValueError, RecursionError):
        pass
    try:
        return _decoder.decode(text)  # white space around it, or the reason why it is no JSON
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("not_json", "nested too deeply") from None
    except ValueError as error:
        raise DecodeError("not_json", str(error)[:200]) from None


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, as `parse_json` gives it, and where it ends. Raises DecodeError, and ValueError
    or RecursionError where no value stands there."""
    try:
        value, end = _scan(text, start)
    except StopIteration:
        raise ValueError(f"no value at {start}") from None
    return value, end


def _number(text: str) -> Decimal:
    if len(text) > MAX_DIGITS:
        raise DecodeError("not_a_number", f"number of {len(text)} characters")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise DecodeError("not_a_number", f"{text!r} is no number") from None


def _constant(text: str) -> Any:
    raise DecodeError("not_a_number", f"{text} is no measured value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DecodeError("duplicate_name", "a name stands twice in one object")
    return result


_decoder = json.JSONDecoder(parse_float=_number, parse_constant=_constant, object_pairs_hook=_object)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]  # not declared
