"""Sparkplug B payloads: bytes ↔ messages and the values in them. Pure."""

import math
import zlib
from decimal import Decimal
from typing import Final

from google.protobuf.message import DecodeError as ProtobufError

from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Metric, Payload
from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import shortest_single

MAX_INFLATED_BYTES: Final = 1024 * 1024
_COMPRESSED: Final = "SPBV1.0_COMPRESSED"
"""The uuid by which Tahu's libraries mark a compressed payload."""

INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64 = range(1, 9)
FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEXT = range(9, 15)
_SIGNED: Final = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
_NARROW: Final = frozenset({INT8, INT16, INT32, UINT8, UINT16, UINT32})
_WIDE: Final = frozenset({INT64, UINT64, DATETIME})
_BITS: Final = {**_SIGNED, UINT8: 8, UINT16: 16, UINT32: 32, UINT64: 64, DATETIME: 64}

QUALITY: Final = "Quality"
BAD, GOOD = 0, 192
"""The Quality property (Sparkplug 3.0 §6.4.5): 0 bad, 192 good, 500 stale."""

Value = int | float | Decimal | bool | str | None


def read_payload(data: bytes) -> Payload:
    """Raises DecodeError: not_sparkplug, oversized (when it is inflated)."""
    payload = _parsed(data)
    return _parsed(_inflated(payload)) if payload.uuid == _COMPRESSED else payload


def _parsed(data: bytes) -> Payload:
    payload = Payload()
    try:
        payload.ParseFromString(data)
    except (ProtobufError, ValueError) as error:  # ValueError: a text that is no UTF-8
        raise DecodeError("not_sparkplug", f"no Sparkplug B payload: {str(error)[:160]}") from None
    return payload


def _inflated(outer: Payload) -> bytes:
    engine = zlib.decompressobj(wbits=47)  # zlib or gzip, as its head says
    try:
        data = engine.decompress(outer.body, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise DecodeError("not_sparkplug", f"cannot be inflated: {error}", "body") from None
    if engine.unconsumed_tail:
        raise DecodeError("oversized", f"inflates to more than {MAX_INFLATED_BYTES} bytes", "body")
    if not engine.eof:  # the metrics at its end are missing
        raise DecodeError("not_sparkplug", "what is compressed ends early", "body")
    return data


def value_of(metric: Metric, datatype: int) -> Value:
    """The metric's value as `datatype` (its own counts where it has one) means it; None where it is null, or of a kind
    that is no single value. Raises DecodeError: not_a_number for a float that is none."""
    if metric.is_null:
        return None
    field = metric.WhichOneof("value")
    if field == "int_value" or field == "long_value":
        number = metric.int_value if field == "int_value" else metric.long_value
        bits = _SIGNED.get(metric.datatype or datatype)
        if bits is None:
            return number
        # Writers differ in how far they extend the sign: what counts are the bits of the type.
        number &= (1 << bits) - 1
        return number - (1 << bits) if number >> (bits - 1) else number
    if field == "float_value":
        return shortest_single(metric.float_value, metric.name)
    if field == "double_value":
        return metric.double_value
    if field == "boolean_value":
        return metric.boolean_value
    return metric.string_value if field == "string_value" else None


def set_value(metric: Metric, value: int | Decimal | str, datatype: int) -> None:
    """Put a value in as `datatype`. Raises ValueError when it cannot hold it exactly (a float: nearly)."""
    metric.datatype = datatype
    if datatype in (STRING, TEXT):
        metric.string_value = str(value)
    elif isinstance(value, str):
        raise ValueError(f"{value[:40]!r} is a text, the metric is of data type {datatype}")
    elif datatype == BOOLEAN and value in (0, 1):
        metric.boolean_value = bool(value)
    elif datatype == DOUBLE:
        metric.double_value = float(value)
    elif datatype == FLOAT:
        metric.float_value = float(value)
        if not math.isfinite(metric.float_value):
            raise ValueError(f"{value} is beyond a Float")
    elif datatype in _NARROW or datatype in _WIDE:
        _set_integer(metric, value, datatype)
    else:
        raise ValueError(f"{value} cannot be written as data type {datatype}")


def _set_integer(metric: Metric, value: int | Decimal, datatype: int) -> None:
    whole, bits = int(value), _BITS[datatype]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if datatype in _SIGNED else (0, (1 << bits) - 1)
    if whole != value or not low <= whole <= high:
        raise ValueError(f"{value} is no whole number of {bits} bits, as data type {datatype} demands")
    if datatype in _NARROW:
        metric.int_value = whole & 0xFFFF_FFFF
    else:
        metric.long_value = whole & 0xFFFF_FFFF_FFFF_FFFF


def quality_of(metric: Metric) -> int:
    """The Quality property, GOOD where there is none."""
    if not metric.HasField("properties"):
        return GOOD
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        if key == QUALITY and value.WhichOneof("value") == "int_value":
            return value.int_value
    return GOOD
