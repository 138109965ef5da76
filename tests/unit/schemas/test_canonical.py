"""Canonical JSON against an independent implementation of RFC 8785, and what the profile refuses."""

import hashlib
import json
from enum import IntEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from flexrelay_schemas.canonical import MAX_DEPTH, MAX_INTEGER, CanonicalError, canonical, digest, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WILD_KEYS = st.sampled_from(["a", "B", "é", "€", "\U0001f600", "\ufb33", "\ue000", "\x7f", "\x00", '"', "\\", "ﾊ", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(WILD_KEYS | TEXT, inner, max_size=6),
    max_leaves=25,
)


@given(VALUES)
@example({"\U0001f600": 1, "\ufb33": 2})  # UTF-16 order is the reverse of code-point order
@example({"a": {"\U0001f600": 1, "\ue000": 2}, "b": [1, {"é": {"z": None, "a": True}}]})
def test_same_bytes_as_the_reference(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(VALUES)
def test_parsing_gives_the_value_back_and_canonical_is_stable(value: Any) -> None:
    data = canonical(value)
    assert parse(data) == value
    assert canonical(parse(data)) == data
    assert digest(value) == hashlib.sha256(data).hexdigest()


@given(VALUES, st.randoms())
def test_the_order_of_names_does_not_matter(value: Any, random: Any) -> None:
    def shuffled(node: Any) -> Any:
        if isinstance(node, dict):
            items = [(name, shuffled(item)) for name, item in node.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in node] if isinstance(node, list) else node

    assert canonical(shuffled(value)) == canonical(value)


def test_order_of_rfc_8785_section_3_2_3() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    assert list(json.loads(canonical(dict.fromkeys(names, 0)))) == [
        "\r",
        "1",
        "\u0080",
        "\u00f6",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


def test_escapes_are_the_shortest() -> None:
    assert (
        canonical('\b\t\n\f\r\x1f\x7f"\\/\u2028é') == b'"\\b\\t\\n\\f\\r\\u001f\x7f\\"\\\\/' + "\u2028é".encode() + b'"'
    )


def test_tuples_are_lists() -> None:
    assert canonical((1, ("é", {"ö": (2,)}))) == canonical([1, ["é", {"ö": [2]}]])


class Colour(IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0, r"\$ is a float"),
        ({"a": [0, 2.5]}, r"\$\.a\[1\] is a float"),
        ({"é": 2.5}, r"\$\.é is a float"),
        (float("nan"), "float"),
        (MAX_INTEGER + 1, "beyond"),
        (-MAX_INTEGER - 1, "beyond"),
        ({1: 2}, "key that is not text: 1"),
        ({"a": b"bytes"}, "bytes"),
        ({"a": {1, 2}}, "set"),
        (Colour.RED, "Colour"),
        (Name("x"), "Name"),
        ("\ud800", "surrogate"),
        ({"a": "\udfff"}, "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ({"é": "\ud800"}, "surrogate"),
        (_nested(MAX_DEPTH + 2), "nested deeper"),
    ],
)
def test_what_has_no_canonical_form(value: Any, message: str) -> None:
    with pytest.raises(CanonicalError, match=message):
        canonical(value)


def test_the_deepest_value_that_is_allowed() -> None:
    value = _nested(MAX_DEPTH + 1)
    assert parse(canonical(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0", "not an integer"),
        ("1e3", "not an integer"),
        ("NaN", "not an integer"),
        ("-Infinity", "not an integer"),
        ("9007199254740992", "beyond"),
        ("-9007199254740992", "beyond"),
        ("1" * 5000, "beyond"),
        ('{"a":1,"b":2,"a":3}', "'a' stands twice"),
        ('{"a":1,"\\u0061":3}', "'a' stands twice"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1,]", "not JSON"),
        ("1 2", "not JSON"),
        ("{'a':1}", "not JSON"),
        ("\ufeff1", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        (_nested(MAX_DEPTH + 2).__repr__(), "nested"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00":1}', "surrogate"),
    ],
)
def test_what_is_not_parsed(text: str, message: str) -> None:
    with pytest.raises(CanonicalError, match=message):
        parse(text)
    with pytest.raises(CanonicalError, match=message):
        parse(text.encode())


def test_what_is_not_utf_8() -> None:
    with pytest.raises(CanonicalError, match="not UTF-8 at byte 1"):
        parse(b'"\xff"')


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_parse_to_the_profile_or_are_refused(data: bytes) -> None:
    try:
        value = parse(data)
    except CanonicalError:
        return
    assert parse(canonical(value)) == value
