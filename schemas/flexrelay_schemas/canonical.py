"""Canonical JSON (RFC 8785, JCS) for everything that is hashed or signed: one place for the whole project.

The profile is JCS without floating-point numbers: integers stay within ±(2^53 - 1), so that every JSON
implementation reads them back exactly. Money, energy and power are integers, hence nothing is lost by it.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

import orjson
import rfc8785

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 64

_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


class CanonicalError(ValueError):
    """The value or text has no canonical form here; the message names the path and what stands there."""


def canonical(value: Any) -> bytes:
    """The JCS bytes of a JSON value made of dict, list, tuple, str, int, bool and None.

    Raises CanonicalError for floats, integers beyond 2^53 - 1, non-string keys and foreign types.
    """
    if _plain(value, 0):
        try:
            return orjson.dumps(value, option=_OPTIONS)
        except orjson.JSONEncodeError:
            pass  # said below, with the place
    _check(value, "$", 0)
    try:  # a key outside ASCII: JCS orders by UTF-16 code units
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise CanonicalError(f"canonical JSON: text holds a lone surrogate ({error})") from None


def digest(value: Any) -> str:
    """Lower-case hex SHA-256 of the canonical bytes of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def parse(data: bytes | str) -> Any:
    """Parse JSON that must fit the profile: no floats, NaN, duplicate names or integers beyond 2^53 - 1.

    What it returns has a canonical form. Raises CanonicalError (also for what is not UTF-8 or not JSON at all).
    """
    return parse_exact(data)[0]


def parse_exact(data: bytes | str) -> tuple[Any, bool]:
    """`parse`, and whether `data` is known to be the canonical bytes of the value (False in doubt)."""
    try:
        value = orjson.loads(data)
        if _plain(value, 0) and orjson.dumps(value, option=_OPTIONS) == data:
            return value, True  # canonical bytes hide nothing: no name stands twice, every number is as it was
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass  # said below, with the place
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = _decode(text)
    except CanonicalError:
        raise
    except UnicodeDecodeError as error:
        raise CanonicalError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise CanonicalError("nested too deeply") from None
    except ValueError as error:
        raise CanonicalError(f"not JSON: {error}") from None
    if _doubtful(text):
        canonical(value)
    return value, False


def _doubtful(text: str) -> bool:
    """Whether a parsed text may hold a lone surrogate or be nested too deeply; cheap, because it is asked of each."""
    return "\\u" in text or not text.isascii() or text.count("[") + text.count("{") > MAX_DEPTH


def _plain(value: Any, depth: int) -> bool:
    """Whether a value is made of nothing but what the profile takes, with keys in ASCII (then code-point order is
    JCS's order). Says False in doubt; the size of integers is left to the encoder."""
    kind = type(value)
    if kind is dict:
        if depth > MAX_DEPTH or not _ascii(value):
            return False
        items = value.values()
    elif kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            return False
        items = value
    else:
        return kind is str or kind is int or kind is bool or value is None
    for item in items:
        kind = type(item)
        if kind is str or kind is int or item is None or kind is bool:
            continue
        if not _plain(item, depth + 1):
            return False
    return True


def _ascii(names: Iterable[Any]) -> bool:
    """Whether all names are text in ASCII."""
    try:
        return "".join(names).isascii()
    except TypeError:
        return False


def _check(value: Any, path: str, depth: int) -> None:
    """Raise CanonicalError for the first thing that the profile forbids, with its path."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise CanonicalError(f"canonical JSON: {path} is an integer beyond 2^53 - 1")
        return
    if depth > MAX_DEPTH:
        raise CanonicalError(f"canonical JSON: {path} is nested deeper than {MAX_DEPTH}")
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise CanonicalError(f"canonical JSON: {path} has a key that is not text: {key!r}")
            _check(item, f"{path}.{key}", depth + 1)
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
    else:
        raise CanonicalError(f"canonical JSON: {path} is a {kind.__name__}, which has no canonical form")


def _no_float(text: str) -> Any:
    raise CanonicalError(f"number {text[:40]} is not an integer")


def _integer(text: str) -> int:
    if len(text) > 17 or not -MAX_INTEGER <= int(text) <= MAX_INTEGER:
        raise CanonicalError(f"integer {text[:40]} is beyond 2^53 - 1")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CanonicalError(f"name {twice[:40]!r} stands twice in one object")
    return result


_decode = json.JSONDecoder(
    parse_float=_no_float, parse_constant=_no_float, parse_int=_integer, object_pairs_hook=_object
).decode  # made once: making a decoder costs as much as a small record
