"""Records on the ledger: canonical JSON objects under composite keys. Every record carries `v`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from flexrelay_contracts.context import ContractContext, composite_key, prefix_range, split_key
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import canonical, parse

VERSION = "1"

Record = dict[str, Any]
View = Mapping[str, Any]
"""A record that nobody changes: its objects are read-only mappings, its lists tuples."""

R = TypeVar("R", bound=Mapping[str, Any])

_SMALL_BYTES = 1024
_VIEWED_BYTES = 4096
_MANY = 512
_CONTAINERS = frozenset({dict, list})


def key(kind: str, *attributes: str) -> str:
    """The key of a record; the version of the layout is its first attribute."""
    return composite_key(kind, VERSION, *attributes)


def load(ctx: ContractContext, record_key: str) -> Record | None:
    """The record, or None. Raises Refused('unknown_version') for a layout that this contract does not know."""
    data = ctx.get(record_key)
    return None if data is None else _decode_again(record_key, data)


def load_many(ctx: ContractContext, record_keys: Sequence[str]) -> list[Record | None]:
    """Like `load` for many keys at once (one round trip on Fabric)."""
    values = ctx.get_many(record_keys)
    # Many are of one market interval and not seen again: they would only push out what every transaction reads.
    decode = _decode if len(record_keys) > _MANY else _decode_again
    return [None if data is None else decode(name, data) for name, data in zip(record_keys, values, strict=True)]


def view_many(ctx: ContractContext, record_keys: Sequence[str]) -> list[View | None]:
    """Like `load_many` for records that are only looked at: frozen, all the way down, and shared between calls."""
    values = ctx.get_many(record_keys)
    return [None if data is None else _view(name, data) for name, data in zip(record_keys, values, strict=True)]


def need(ctx: ContractContext, record_key: str, code: str, message: str, field: str = "") -> Record:
    """The record; Refused(code, message, field) when there is none."""
    record = load(ctx, record_key)
    if record is None:
        raise Refused(code, message, field)
    return record


def save(ctx: ContractContext, record_key: str, record: Mapping[str, Any]) -> None:
    """Write a record; `v` is added."""
    ctx.put(record_key, canonical({**record, "v": 1}))


def scan(
    ctx: ContractContext, kind: str, *attributes: str, first: str = ""
) -> Iterator[tuple[tuple[str, ...], Record]]:
    """All records under a key prefix in key order: (attributes after the version, record). Phantom-protected.

    `first`: begin with the records whose next attribute is this or comes after it.
    """
    start, end = prefix_range(kind, VERSION, *attributes)
    for record_key, data in ctx.range(key(kind, *attributes, first) if first else start, end):
        yield split_key(record_key)[2:], _decode(record_key, data)


def announce(ctx: ContractContext, name: str, payload: Mapping[str, Any]) -> None:
    """Emit an event with a canonical JSON object; `v` is added."""
    ctx.emit(name, canonical({**payload, "v": 1}))


def _decode_again(record_key: str, data: bytes) -> Record:
    """`_decode` for records that every transaction reads (actors, gateways): parsed once, copied each time."""
    if len(data) > _SMALL_BYTES:
        return _decode(record_key, data)
    return _checked(record_key, _copy(_parsed(data)))


@lru_cache(maxsize=2048)
def _parsed(data: bytes) -> Any:
    return parse(data)


def _view(record_key: str, data: bytes) -> View:
    view = _frozen(data) if len(data) <= _VIEWED_BYTES else _freeze(parse(data))
    return view if view.get("v") == 1 else _checked(record_key, view)


@lru_cache(maxsize=2048)
def _frozen(data: bytes) -> Any:
    return _freeze(parse(data))


def _freeze(value: Any) -> Any:
    if type(value) is dict:
        return MappingProxyType({name: _freeze(item) for name, item in value.items()})
    return tuple([_freeze(item) for item in value]) if type(value) is list else value


def _copy(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {name: _copy(item) if type(item) in _CONTAINERS else item for name, item in value.items()}
    return [_copy(item) if type(item) in _CONTAINERS else item for item in value] if kind is list else value


def _decode(record_key: str, data: bytes) -> Record:
    return _checked(record_key, parse(data))


def _checked(record_key: str, record: R) -> R:
    if record.get("v") != 1:
        raise Refused("unknown_version", f"record {split_key(record_key)} has version {record.get('v')!r}; known: 1")
    return record
