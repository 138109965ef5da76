"""LwM2M CBOR (content format 11544; LwM2M 1.2, OMA Core §7.4.7): maps nested by identifier, keys may be whole paths."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import cbor2

from flexrelay_adapters.lwm2m.formats.record import MAX_RECORDS, FormatError, Path, Record, Value, checked
from flexrelay_adapters.lwm2m.formats.senml_cbor import load

_MAX_NODES: Final = 4 * MAX_RECORDS
"""Entries of all maps together. A map that is shared counts at each place: so few bytes may stand for very many."""
_VALUES = (bool, int, float, Decimal, str, bytes, type(None))


def decode(payload: bytes) -> list[Record]:
    """Raises FormatError."""
    document = load(payload)
    if type(document) is not dict:
        raise FormatError("not_lwm2m_cbor", "it is no map")
    records: list[Record] = []
    for path, value in _walk(document, (), iter(range(_MAX_NODES))):
        if len(records) >= MAX_RECORDS:
            raise FormatError("too_many", f"more than {MAX_RECORDS} resources")
        records.append(Record(path, value))
    return records


def _walk(node: dict[Any, Any], base: Path, room: Iterator[int]) -> Iterator[tuple[Path, Value]]:
    """`room` has an element for each entry that may still be looked at."""
    for key, value in node.items():
        if next(room, None) is None:
            raise FormatError("too_many", f"more than {_MAX_NODES} entries")
        parts = key if isinstance(key, tuple | list) else (key,)
        path = (*base, *parts)
        if not parts or len(path) > 4 or not all(type(part) is int and 0 <= part <= 65_535 for part in parts):
            raise FormatError("bad_path", f"a key below {base} is no identifier, and no path of an LwM2M resource")
        if type(value) is dict:
            yield from _walk(value, path, room)
        elif isinstance(value, _VALUES):
            if len(path) < 3 and value is not None:
                raise FormatError("not_lwm2m_cbor", f"{path} is no resource")
            yield path, checked(value, path)
        else:
            raise FormatError("not_lwm2m_cbor", f"{path} is {type(value).__name__}")


def encode(records: Sequence[Record]) -> bytes:
    document: dict[int, Any] = {}
    for record in records:
        node: dict[int, Any] = document
        for part in record.path[:-1]:
            node = node.setdefault(part, {})
        value = record.value
        node[record.path[-1]] = float(value) if isinstance(value, Decimal) else value
    return cbor2.dumps(document)
