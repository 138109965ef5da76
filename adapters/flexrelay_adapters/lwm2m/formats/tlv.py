"""OMA TLV (content format 11542; OMA Core §7.4.3): nested identifiers with lengths, values as bytes.

Numbers are big-endian integers of 1, 2, 4 or 8 bytes, floats of 4 or 8: only the resource's type tells them apart
(`integer`, `number`), so a decoded record holds the bytes.
"""

import math
import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from flexrelay_adapters.lwm2m.formats.record import MAX_RECORDS, FormatError, Path, Record, Value

_OBJECT_INSTANCE: Final = 0
_RESOURCE_INSTANCE: Final = 1
_MULTIPLE: Final = 2
_RESOURCE: Final = 3
_FLOATS: Final = {4: struct.Struct(">f"), 8: struct.Struct(">d")}


def decode(payload: bytes, base: Path) -> list[Record]:
    """`base` is the path that was asked for. Raises FormatError."""
    records: list[Record] = []
    if not payload:
        return records
    if len(base) < 1:
        raise FormatError("bad_path", "TLV needs the object's path")
    _walk(payload, 0, len(payload), base, records)
    return records


def _walk(data: bytes, at: int, end: int, base: Path, records: list[Record], *, inside: bool = False) -> None:
    """`inside` an object instance there is no other one."""
    while at < end:
        head = data[at]
        kind = head >> 6
        at += 1
        wide = 2 if head & 0x20 else 1
        if at + wide > end:
            raise _cut()
        number = int.from_bytes(data[at : at + wide], "big")
        at += wide
        sizes = head >> 3 & 3
        if sizes:
            if at + sizes > end:
                raise _cut()
            length = int.from_bytes(data[at : at + sizes], "big")
            at += sizes
        else:
            length = head & 7
        stop = at + length
        if stop > end:
            raise _cut()
        if kind == _OBJECT_INSTANCE:
            if inside or len(base) > 2 or (len(base) == 2 and base[1] != number):
                raise FormatError("not_tlv", f"object instance {number} within {base}")
            _walk(data, at, stop, (base[0], number), records, inside=True)
        elif kind in (_RESOURCE, _MULTIPLE):
            # an object's answer may leave its only instance out (§7.4.3): then it is instance 0
            owner = base if len(base) == 2 else base[:2] if len(base) > 2 else (base[0], 0)
            if len(base) >= 3 and base[2] != number:
                raise FormatError("not_tlv", f"resource {number} within {base}")
            path = (*owner, number)
            if kind == _RESOURCE:
                _add(records, path, data[at:stop])
            else:
                _walk_instances(data, at, stop, path, records)
        else:
            if len(base) < 3:
                raise FormatError("not_tlv", f"resource instance {number} within {base}")
            _add(records, (*base[:3], number), data[at:stop])
        at = stop


def _walk_instances(data: bytes, at: int, end: int, path: Path, records: list[Record]) -> None:
    if at < end and data[at] >> 6 != _RESOURCE_INSTANCE:
        raise FormatError("not_tlv", "a multiple resource holds something else than resource instances")
    inner: list[Record] = []
    _walk_flat(data, at, end, path, inner)
    for record in inner:
        _add(records, record.path, record.value)


def _walk_flat(data: bytes, at: int, end: int, path: Path, records: list[Record]) -> None:
    while at < end:
        head = data[at]
        if head >> 6 != _RESOURCE_INSTANCE:
            raise FormatError("not_tlv", "a multiple resource holds something else than resource instances")
        wide, sizes = 2 if head & 0x20 else 1, head >> 3 & 3
        start = at + 1 + wide + sizes
        if start > end:
            raise _cut()
        number = int.from_bytes(data[at + 1 : at + 1 + wide], "big")
        length = int.from_bytes(data[at + 1 + wide : start], "big") if sizes else head & 7
        if start + length > end:
            raise _cut()
        _add(records, (*path, number), data[start : start + length])
        at = start + length


def _add(records: list[Record], path: Path, value: Value) -> None:
    if len(records) >= MAX_RECORDS:
        raise FormatError("too_many", f"more than {MAX_RECORDS} resources")
    records.append(Record(path, value))


def _cut() -> FormatError:
    return FormatError("not_tlv", "it is cut off")


def integer(value: bytes) -> int:
    """A TLV integer, boolean or time. Raises FormatError."""
    if len(value) not in (0, 1, 2, 4, 8):
        raise FormatError("not_a_number", f"an integer of {len(value)} bytes")
    return int.from_bytes(value, "big", signed=True)


def number(value: bytes) -> float:
    """A TLV float. Raises FormatError."""
    layout = _FLOATS.get(len(value))
    if layout is None:
        raise FormatError("not_a_number", f"a float of {len(value)} bytes")
    result: float = layout.unpack(value)[0]
    if not math.isfinite(result):
        raise FormatError("not_a_number", "it is infinite or no number")
    return result


def encode(records: Sequence[Record], base: Path) -> bytes:
    """Records below `base`, a path of an object instance, resource or resource instance. Raises FormatError."""
    if len(base) < 2:
        instances: dict[int, list[Record]] = {}
        for record in records:
            instances.setdefault(record.path[1], []).append(record)
        return b"".join(
            _entry(_OBJECT_INSTANCE, instance, encode(inner, (*base[:1], instance)))
            for instance, inner in instances.items()
        )
    out = bytearray()
    multiple: dict[int, bytearray] = {}
    for record in records:
        path = record.path
        if len(path) < 3 or path[: len(base)] != base:
            raise FormatError("bad_path", f"{path} is not below {base}")
        value = raw(record.value)
        if len(path) == 3:
            out += _entry(_RESOURCE, path[2], value)
        else:
            multiple.setdefault(path[2], bytearray()).extend(_entry(_RESOURCE_INSTANCE, path[3], value))
    for resource, inner in multiple.items():
        out += _entry(_MULTIPLE, resource, bytes(inner))
    return bytes(out)


def raw(value: Value) -> bytes:
    """The bytes of a value."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return b"\x01" if value else b"\x00"
    if isinstance(value, int):
        for size in (1, 2, 4, 8):
            if -(1 << size * 8 - 1) <= value < 1 << size * 8 - 1:
                return value.to_bytes(size, "big", signed=True)
        raise FormatError("out_of_range", f"{value} has more than 64 bits")
    if isinstance(value, float | Decimal):
        return _FLOATS[8].pack(float(value))
    return b""


def _entry(kind: int, number_: int, value: bytes) -> bytes:
    wide = number_ > 255
    size = len(value)
    sizes = 0 if size < 8 else (size.bit_length() + 7) // 8
    head = kind << 6 | (0x20 if wide else 0) | sizes << 3 | (size if not sizes else 0)
    return (
        bytes((head,)) + number_.to_bytes(2 if wide else 1, "big") + (size.to_bytes(sizes, "big") if sizes else b"")
    ) + value
