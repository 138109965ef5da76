"""The mapping that all adapters share, beyond plain JSON: paths, binary numbers, times, quality."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flexrelay_schemas.entities import DEVICE_KINDS, attributes_of, map_measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import (
    MISSING,
    Conversion,
    Mapper,
    Mapping,
    find,
    instant_ms,
    parse_path,
    shortest,
    shortest_single,
)

RECEIVED = 1_700_000_000_000
DOCUMENT = {
    "a": {"b": [10, {"c d": 11}], "x-y": 12, "~/": 13},
    "list": [{"n": "in", "v": 1}, {"n": "out", "v": 2}, {"n": "out", "v": 3}],
    "3305": {"0": {"5800": 14.5}},
    "ns=2;s=Meter.Power": 15,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/a/b/0", 10),
        ("$.a.b[0]", 10),
        ("/a/b/1/c d", 11),
        ("$.a.b[1]['c d']", 11),
        ('$.a.b[1]["c d"]', 11),
        ("$.a.x-y", 12),
        ("/a/~0~1", 13),
        ("$['a']['~/']", 13),
        ("$.list[?(@.n=='out')].v", 2),
        ('$.list[?(@.n == "in")].v', 1),
        ("$.list[?@.n=='in'].v", 1),
        ("/3305/0/5800", 14.5),
        ("/ns=2;s=Meter.Power", 15),
        ("", DOCUMENT),
        ("$", DOCUMENT),
        ("/a/b/2", MISSING),
        ("/a/b/-1", MISSING),
        ("/a/b/-", MISSING),
        ("/a/b/٠", MISSING),
        ("/a/b/0/x", MISSING),
        ("$.list[?(@.n=='none')].v", MISSING),
        ("$.a[?(@.n=='none')].v", MISSING),
        ("/nowhere/at/all", MISSING),
    ],
)
def test_a_path_names_one_place(path: str, value: Any) -> None:
    assert find(DOCUMENT, parse_path(path)) is value or find(DOCUMENT, parse_path(path)) == value


@pytest.mark.parametrize(
    "path", ["a", "$a", "$..a", "$.a[*]", "$.a[0:2]", "$.a[-1]", "$.", "$.a[?(@.n>1)]", "/a~", "/~2", "$['a", "$.a b"]
)
def test_what_names_no_single_place_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path .* (matches neither pattern|names no single place)"):
        parse_path(path)


@given(st.text(max_size=30), st.recursive(st.integers(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)))
def test_finding_never_raises(path: str, document: Any) -> None:
    for text in (path, "/" + path, "$" + path):
        try:
            steps = parse_path(text)
        except ValueError:
            continue
        find(document, steps)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9), st.integers(-3, 3))
def test_a_double_counts_as_the_decimal_that_it_was_written_as(value: float, scale: int) -> None:
    exact = Fraction(repr(value)) * 1000 * Fraction(10) ** scale
    assert Conversion("power_w", "kW", scale).convert(value) == round(exact)
    assert shortest(value) == Decimal(repr(value))
    assert Conversion("power_w", "W").convert(1.5e-262) == 0


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_single_counts_as_the_shortest_decimal_that_gives_it(value: float) -> None:
    decimal = shortest_single(value)
    assert struct.pack("<f", float(decimal)) == struct.pack("<f", value) or value == 0
    assert len(decimal.as_tuple().digits) <= 9


def test_a_tenth_in_four_bytes_is_a_tenth() -> None:
    (value,) = struct.unpack("<f", struct.pack("<f", 230.1))
    assert Conversion("voltage_mv", "V").convert(value) == 230_100
    assert str(shortest_single(value)) == "230.1"
    (greatest,) = struct.unpack("<f", b"\xff\xff\x7f\x7f")
    assert shortest_single(greatest) == Decimal("3.4028235e+38")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not_a_number"),
        (math.inf, "not_a_number"),
        ("1", "not_a_number"),
        (True, "not_a_number"),
        (None, "not_a_number"),
        (b"1", "not_a_number"),
        (2**53, "out_of_range"),
        (1e300, "out_of_range"),
        (Decimal("1e-999999999"), "out_of_range"),
        (Decimal("1e999999999"), "out_of_range"),
        (Decimal("NaN"), "out_of_range"),
        pytest.param(10**10_000, "out_of_range", id="huge"),
        (-1, "out_of_range"),
    ],
)
def test_what_is_no_measured_value_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Conversion("import_j", "Wh", place="/e").convert(value)
    assert (caught.value.reason, caught.value.field) == (reason, "/e")


@pytest.mark.parametrize(
    ("register", "unit", "says"), [("temperature_c", "W", "unknown register"), ("power_w", "kWh", "cannot be given in")]
)
def test_a_unit_that_does_not_fit_is_refused(register: str, unit: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Conversion(register, unit)


@pytest.mark.parametrize(
    ("value", "form", "ms"),
    [
        (1463738400, "s", 1463738400000),
        (Decimal("1463738400.1235"), "s", 1463738400124),
        (1463738400.5, "s", 1463738400500),
        (1463738400123, "ms", 1463738400123),
        (1463738400123499, "us", 1463738400123),
        (1463738400123500001, "ns", 1463738400124),
        ("2016-05-20T12:00:00.250+02:00", "iso8601", 1463738400250),
        ("2016-05-20T10:00:00Z", "iso8601", 1463738400000),
        ("2016-05-20 10:00:00", "iso8601_utc", 1463738400000),
        ("2016-05-20T12:00:00+02:00", "iso8601_utc", 1463738400000),
    ],
)
def test_times(value: Any, form: Any, ms: int) -> None:
    assert instant_ms(value, form) == ms


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("2016-05-20T10:00:00", "iso8601"),
        ("yesterday", "iso8601"),
        (1, "iso8601"),
        ("1463738400", "s"),
        (1.5, "ms"),
        (True, "ms"),
        (0, "ms"),
        (-1, "s"),
        (2**53, "ms"),
        (math.nan, "s"),
        (Decimal("1e50"), "s"),
        ("0001-01-01T00:00:00+14:00", "iso8601"),
        (None, "s"),
    ],
)
def test_what_is_no_time_is_refused(value: Any, form: Any) -> None:
    with pytest.raises(DecodeError):
        instant_ms(value, form)


def mapper(**more: Any) -> Mapper:
    return Mapper(Mapping.model_validate({"registers": {"power_w": {"pointer": "/p", "unit": "W"}}, **more}))


@pytest.mark.parametrize(
    ("document", "ms"), [({"p": 1, "t": 5}, 5000), ({"p": 1}, RECEIVED), ({"p": 1, "t": None}, RECEIVED)]
)
def test_an_absent_time_is_that_of_the_reception_where_the_mapping_allows_it(document: Any, ms: int) -> None:
    time = {"pointer": "/t", "form": "s"}
    assert mapper(observed_at={**time, "required": False}).measurement(document, RECEIVED).observed_at == ms
    if ms == RECEIVED:
        with pytest.raises(DecodeError, match="bad_time"):
            mapper(observed_at=time).measurement(document, RECEIVED)


def test_only_where_the_time_may_be_absent_two_readings_could_get_one_instant() -> None:
    def of(**more: Any) -> bool:
        document = {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}, **more}
        return Mapping.model_validate(document).may_use_receive_time

    time = {"pointer": "/t", "form": "s"}
    assert (of(), of(observed_at=time), of(observed_at={**time, "required": False})) == (True, False, True)


@pytest.mark.parametrize(
    ("state", "provenance", "notice"),
    [
        ("G", Provenance.GATEWAY_ATTESTED, Notice.NONE),
        (True, Provenance.GATEWAY_ATTESTED, Notice.NONE),
        (None, Provenance.GATEWAY_ATTESTED, Notice.NONE),
        (192, Provenance.GATEWAY_ATTESTED, Notice.NONE),
        ("E", Provenance.ESTIMATED, Notice.NONE),
        ("S", Provenance.SUBSTITUTED, Notice.NONE),
        (1, Provenance.GATEWAY_ATTESTED, Notice.DEVICE_FLAGGED),
        ("192", Provenance.GATEWAY_ATTESTED, Notice.DEVICE_FLAGGED),
        ({}, Provenance.GATEWAY_ATTESTED, Notice.DEVICE_FLAGGED),
        (192.0, Provenance.GATEWAY_ATTESTED, Notice.DEVICE_FLAGGED),
    ],
)
def test_the_sources_word_on_its_value(state: Any, provenance: Provenance, notice: Notice) -> None:
    quality = {"pointer": "/q", "good": ["G", 192, True], "estimated": ["E"], "substituted": ["S"], "refused": ["B"]}
    made = mapper(quality=quality).measurement({"p": 1, "q": state}, RECEIVED)
    assert (made.provenance, made.notice) == (provenance, notice)
    with pytest.raises(DecodeError, match="bad_quality"):
        mapper(quality=quality).measurement({"p": 1, "q": "B"}, RECEIVED)


@pytest.mark.parametrize("items", [[], [{"p": 1}] * 1001, {}, "x", None])
def test_a_list_of_readings_has_one_to_a_thousand(items: Any) -> None:
    with pytest.raises(DecodeError, match="bad_items"):
        mapper(items="/i").measurements({"i": items}, RECEIVED)
    assert len(mapper(items="/i").measurements({"i": [{"p": 1}] * 1000}, RECEIVED)) == 1000


@pytest.mark.parametrize("kind", DEVICE_KINDS)
def test_attributes_of_a_model_come_back_as_they_were_given(kind: str) -> None:
    """What the twin shows an NGSI-LD platform is, attribute by attribute, what the source said in the model's terms."""
    said = {name: 3 + number for number, name in enumerate(attributes_of(kind))}
    attributes = {name: {"pointer": f"/{name}"} for name in said}
    made = Mapper(Mapping.model_validate({"device_kind": kind, "attributes": attributes})).measurement(said, RECEIVED)
    entity = map_measurement(kind, made._replace(did="did:flexrelay:pilot:zQm"))
    shown = {name: entity[name]["value"] for name in said}
    assert {name: value["L1"] if isinstance(value, dict) else value for name, value in shown.items()} == said
    turned = [name for name, filling in attributes_of(kind).items() if filling.turned]
    assert (kind == "pv") == (turned == ["activePower"])


def test_a_unit_and_a_sign_of_its_own() -> None:
    document = {
        "device_kind": "pv",
        "attributes": {"activePower": {"pointer": "/p", "unit": "W", "negate": True}},
        "registers": {"export_j": {"pointer": "/e", "unit": "Wh"}},
    }
    made = Mapper(Mapping.model_validate(document)).measurement({"p": -1500, "e": 2}, RECEIVED)
    assert made.registers == {"power_w": -1500, "export_j": 7200}


PV = {"device_kind": "pv", "attributes": {"activePower": {"pointer": "/p"}}}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"registers": {}}, "at least 1 of registers and attributes"),
        ({**PV, "device_kind": "fridge"}, "unknown"),
        ({**PV, "device_kind": None}, "belong together"),
        ({"device_kind": "pv", "registers": {"power_w": {"pointer": "/p", "unit": "W"}}}, "belong together"),
        ({**PV, "attributes": {"power": {"pointer": "/p"}}}, "a pv has no attribute 'power'; known are"),
        ({**PV, "attributes": {"activePower": {"pointer": "/p", "unit": "kWh"}}}, "cannot be given in kWh"),
        ({**PV, "registers": {"power_w": {"pointer": "/q", "unit": "W"}}}, "are the same"),
    ],
)
def test_a_mapping_that_makes_no_sense_says_why(document: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Mapping.model_validate(document)
