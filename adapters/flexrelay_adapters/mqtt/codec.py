"""Plain JSON payloads by a declarative mapping: exact integer arithmetic, no floats, and DecodeError for all else."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from flexrelay_adapters.mqtt.config import UNITS, FieldMapping, JsonMapping, TimeMapping
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.reading import CUMULATIVE
from flexrelay_sdk import Decoded, DecodeError, Frame

MAX_ITEMS = 1000
"""Readings in one payload."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_MAX_DIGITS = 40
_MISSING: Any = object()
_WHOLE = frozenset({int, str, bool, type(None)})


class MappingCodec:
    """`Codec` for one `JsonMapping`. Measurements name no DID: the transport's identity counts."""

    def __init__(self, mapping: JsonMapping) -> None:
        self._items = _tokens(mapping.items) if mapping.items is not None else None
        self._registers = tuple(_Source(name, field) for name, field in sorted(mapping.registers.items()))
        self._time = mapping.observed_at
        self._time_tokens = _tokens(mapping.observed_at.pointer) if mapping.observed_at is not None else ()
        self._seq = mapping.seq
        self._seq_tokens = _tokens(mapping.seq) if mapping.seq is not None else ()

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: not_utf8, not_json, missing_field, not_a_number, out_of_range, bad_time, …"""
        document = _parse(frame.payload)
        if self._items is None:
            return Decoded((self._one(document, frame.received_at),))
        items = _find(document, self._items)
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
            raise DecodeError("bad_items", f"expected a list of 1 to {MAX_ITEMS} readings", "items")
        return Decoded(tuple(self._one(item, frame.received_at) for item in items))

    def _one(self, document: Any, received_at: int) -> Measurement:
        registers: dict[str, int] = {}
        for source in self._registers:
            value = _find(document, source.tokens)
            if type(value) is int and source.factor and source.low <= (result := value * source.factor) <= MAX_INTEGER:
                registers[source.name] = result  # nearly all values: whole numbers in whole units
            elif value is not _MISSING and value is not None:
                registers[source.name] = source.convert(value)
            elif source.required:
                raise DecodeError("missing_field", f"register {source.name} stands nowhere", source.pointer)
        if not registers:
            raise DecodeError("missing_field", "none of the optional registers is there")
        observed_at = received_at if self._time is None else self._observed_at(document, self._time)
        seq: int | None = None
        if self._seq is not None:
            seq = _find(document, self._seq_tokens)
            if type(seq) is not int or not 0 <= seq <= MAX_INTEGER:
                raise DecodeError("bad_seq", "expected a non-negative integer", self._seq)
        return Measurement("", observed_at, registers, seq)

    def _observed_at(self, document: Any, mapping: TimeMapping) -> int:
        value = _find(document, self._time_tokens)
        if mapping.form == "ms":
            ms = value
        elif mapping.form == "s" and type(value) is int:
            ms = value * 1000
        elif mapping.form == "s" and isinstance(value, Decimal):
            ms = _scaled(value, 1000, mapping.pointer)
        elif mapping.form == "iso8601" and isinstance(value, str):
            ms = _iso_ms(value, mapping.pointer)
        else:
            ms = None
        if type(ms) is not int:
            raise DecodeError("bad_time", f"expected a time as {mapping.form}", mapping.pointer)
        if not 0 < ms <= MAX_INTEGER:
            raise DecodeError("bad_time", "time out of range", mapping.pointer)
        return ms


def _parse(payload: bytes) -> Any:
    try:
        flat = orjson.loads(payload)
        # One object of whole numbers and texts, with as many names as colons after a quote: no name stands twice, and
        # nothing in it needs exact decimals. All else takes the long way.
        if type(flat) is dict and payload.count(b'":') == len(flat) and _WHOLE.issuperset(map(type, flat.values())):
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


def _number(text: str) -> Decimal:
    if len(text) > _MAX_DIGITS:
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


def _tokens(pointer: str) -> tuple[str, ...]:
    """RFC 6901 §4."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _find(document: Any, tokens: tuple[str, ...]) -> Any:
    if len(tokens) == 1 and type(document) is dict:
        return document.get(tokens[0], _MISSING)
    value = document
    for token in tokens:
        if type(value) is dict:
            value = value.get(token, _MISSING)
        elif type(value) is list:
            index = int(token) if token.isascii() and token.isdigit() and len(token) <= 6 else len(value)
            value = value[index] if index < len(value) else _MISSING
        else:
            return _MISSING
    return value


class _Source:
    """Where a register stands and how its integer comes about; `factor` is 0 when it is no whole number."""

    __slots__ = ("_divisor", "_multiplier", "factor", "low", "name", "pointer", "required", "tokens")

    def __init__(self, name: str, field: FieldMapping) -> None:
        self.name = name
        self.pointer = field.pointer
        self.tokens = _tokens(field.pointer)
        self.required = field.required
        self.low = 0 if name in CUMULATIVE else -MAX_INTEGER
        unit = UNITS[name.rsplit("_", 1)[1]][field.unit] * (-1 if field.negate else 1)
        self._multiplier = unit * 10 ** max(field.scale, 0)
        self._divisor = 10 ** max(-field.scale, 0)
        self.factor = self._multiplier if self._divisor == 1 else 0

    def convert(self, value: Any) -> int:
        """Raises DecodeError."""
        if type(value) is int:
            result = _half_even(value * self._multiplier, self._divisor)
        elif type(value) is Decimal:
            result = _scaled(value, self._multiplier, self.pointer, self._divisor)
        else:
            raise DecodeError("not_a_number", f"register {self.name} is {_kind(value)}", self.pointer)
        if not -MAX_INTEGER <= result <= MAX_INTEGER:
            raise DecodeError("out_of_range", f"register {self.name} is beyond 2^53 - 1", self.pointer)
        if result < self.low:
            raise DecodeError("out_of_range", f"register {self.name} is negative", self.pointer)
        return result


def _scaled(value: Decimal, factor: int, pointer: str, divisor: int = 1) -> int:
    """value × factor / divisor, exactly, rounded half to even."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > _MAX_DIGITS:
        raise DecodeError("out_of_range", "exponent out of range", pointer)
    number = int("".join(map(str, digits))) * factor * (-1 if sign else 1)
    if exponent >= 0:
        return _half_even(number * 10**exponent, divisor)
    return _half_even(number, divisor * 10**-exponent)


def _half_even(number: int, divisor: int) -> int:
    whole, rest = divmod(number, divisor)
    if rest * 2 > divisor or (rest * 2 == divisor and whole % 2):
        return whole + 1
    return whole


def _iso_ms(text: str, pointer: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise DecodeError("bad_time", "ISO 8601 time without an offset", pointer)
        return (instant - _EPOCH) // _MS
    except DecodeError:
        raise
    except (ValueError, OverflowError):
        raise DecodeError("bad_time", "not an ISO 8601 time", pointer) from None


def _kind(value: Any) -> str:
    names = {str: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(type(value), "nothing known")
