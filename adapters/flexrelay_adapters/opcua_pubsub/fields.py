"""Fields of a DataSetMessage's payload: RawData, Variant or DataValue (OPC 10000-14 §5.3.2, §7.2.5.4), in the JSON
encodings of OPC 10000-6 §5.4 as of 1.05 (compact, verbose) and of 1.04 (reversible, non-reversible). Pure."""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import instant_ms, shortest_single

BAD: Final = 0x8000_0000
UNCERTAIN: Final = 0x4000_0000
FLOAT: Final = 10
_INT64: Final = (8, 9)
_NUMBERS: Final = frozenset(range(2, 12))
"""Built-in types SByte … Double (OPC 10000-6 §5.1.2)."""
_STATUS_CODE: Final = 19
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_NO_NUMBER: Final = ("NaN", "Infinity", "-Infinity")
_OF_DATA_VALUE: Final = frozenset(
    {"Value", "Status", "StatusCode", "SourceTimestamp", "ServerTimestamp", "UaType"}
)  # StatusCode: what the .NET stack writes
_MOST_OF_TIME: Final = 64
"""Characters of a DateTime."""
_SEVERITIES: Final = {"Good": 0, "Unce": UNCERTAIN, "Bad": BAD}


class Field(NamedTuple):
    """`value` is None where the field tells none; `kind` the built-in type that it names, 0 for none; times are UTC ms,
    0 for none."""

    value: Any
    kind: int = 0
    status: int = 0
    source_ms: int = 0
    server_ms: int = 0


def field_of(raw: Any, name: str) -> Field:
    """Raises DecodeError: bad_status, bad_time, not_a_number; `name` stands in them."""
    if type(raw) is not dict:
        return Field(raw)
    value: Any = raw.get("Value")
    if value is not None and type(value) is not dict and "Body" not in raw:  # nearly all
        told = raw.get("Status", raw.get("StatusCode"))
        return _field(value, _kind(raw.get("UaType")), 0 if told is None else status_of(told, name), raw, name)
    if "Body" in raw or ("Type" in raw and not raw.keys() & _OF_DATA_VALUE):  # a Variant of 1.04
        return _field(raw.get("Body"), _kind(raw.get("Type")), 0, {}, name)
    if not raw or raw.keys() <= {"Code", "Symbol"}:  # a StatusCode stands for a value that is bad (§6.2.4.2 table 35)
        return Field(None, _STATUS_CODE, status_of(raw, name))
    kind = _kind(raw.get("UaType"))
    if not kind and raw.keys().isdisjoint(_OF_DATA_VALUE):
        return Field(raw)  # a structure
    status = status_of(raw.get("Status", raw.get("StatusCode")), name)
    # the compact encoding leaves out what is the type's default (OPC 10000-6 §5.4.2.1)
    value = raw.get("Value", 0 if kind in _NUMBERS else None)
    if type(value) is dict and ("Body" in value or "Type" in value):
        value, kind = value.get("Body"), _kind(value.get("Type"))
    return _field(value, kind, status, raw, name)


def status_of(raw: Any, name: str) -> int:
    """A StatusCode: a number (1.04), {"Code": …, "Symbol": …} (Good is {} or absent), or the symbol alone. Raises
    DecodeError("bad_status") for anything else."""
    if raw is None:
        return 0
    if isinstance(raw, dict):
        raw = raw.get("Code", raw.get("Symbol", 0))
    if type(raw) is int and 0 <= raw < 2**32:
        return raw
    if type(raw) is str:
        for start, severity in _SEVERITIES.items():
            if raw.startswith(start):
                return severity
    raise DecodeError("bad_status", "what stands there is no StatusCode", name)


def number_of(field: Field, told: int, name: str) -> Any:
    """The value as `Conversion` takes it. `told` is the type that the metadata names, 0 for none.

    Raises DecodeError: not_a_number, out_of_range.
    """
    value, kind = field.value, field.kind or told
    if kind and kind not in _NUMBERS:
        raise DecodeError("not_a_number", f"it is of the built-in type {kind}", name)
    if type(value) is str:
        if value in _NO_NUMBER:
            raise DecodeError("not_a_number", f"{value} is no measured value", name)
        # 64-bit integers are texts in JSON (OPC 10000-6 §5.4.2.3); other numbers are not
        if kind not in (0, *_INT64) or _WHOLE.fullmatch(value) is None:
            raise DecodeError("not_a_number", "it is a text", name)
        return int(value)
    if kind == FLOAT and type(value) is Decimal and value.is_finite():
        try:
            return shortest_single(float(value), name)
        except OverflowError:
            raise DecodeError("out_of_range", "it is no Float", name) from None
    return value


def time_of(raw: Any, name: str) -> int:
    """A DateTime as UTC ms; 0 for none and for DateTime.MinValue. Raises DecodeError("bad_time")."""
    if raw is None:
        return 0
    if type(raw) is not str or len(raw) > _MOST_OF_TIME:
        raise DecodeError("bad_time", "expected a time as iso8601", name)
    try:
        return _instant(raw)
    except DecodeError as error:
        raise DecodeError(error.reason, error.message, name) from None


def _field(value: Any, kind: int, status: int, times: Mapping[str, Any], name: str) -> Field:
    if kind == _STATUS_CODE:
        value, status = None, status | status_of(value, name)
    source, server = times.get("SourceTimestamp"), times.get("ServerTimestamp")
    source_ms = 0 if source is None else time_of(source, name)
    return Field(value, kind, status, source_ms, 0 if server is None else time_of(server, name))


def _kind(raw: Any) -> int:
    return raw if type(raw) is int and 0 <= raw < 64 else 0


@lru_cache(maxsize=4096)
def _instant(text: str) -> int:
    """The fields of one message mostly have the same."""
    return 0 if text.startswith(("0001-01-01", "1601-01-01")) else instant_ms(text, "iso8601")
