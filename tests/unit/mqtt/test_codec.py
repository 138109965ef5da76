"""The declarative JSON mapping: exact scaling, times, sequence numbers, and one precise reason for all else."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flexrelay_adapters.mqtt import JsonMapping, MappingCodec
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import DecodeError, Frame

RECEIVED = 1_700_000_000_000


def codec(registers: dict[str, Any], **more: Any) -> MappingCodec:
    return MappingCodec(JsonMapping.model_validate({"registers": registers, **more}))


def decode(with_codec: MappingCodec, payload: bytes | str) -> Any:
    data = payload.encode() if isinstance(payload, str) else payload
    return with_codec.decode(Frame("mqtt", "meter1", data, RECEIVED, "t")).measurements


ENERGY = codec({"import_j": {"pointer": "/energy/0/in", "unit": "kWh"}})
POWER = codec({"power_w": {"pointer": "/p", "unit": "kW", "negate": True}})


@pytest.mark.parametrize(
    ("text", "joules"),
    [
        ("1234.567", 4_444_441_200),
        ("0", 0),
        ("1e3", 3_600_000_000),
        ("0.000000138", 0),
        ("0.000000139", 1),
        ("2501999791.999", 9_007_199_251_196_400),
        ("0.1", 360_000),
    ],
)
def test_energy_is_exact(text: str, joules: int) -> None:
    (measurement,) = decode(ENERGY, f'{{"energy": [{{"in": {text}}}]}}')
    assert measurement.registers == {"import_j": joules}
    assert (measurement.did, measurement.observed_at, measurement.seq) == ("", RECEIVED, None)


@pytest.mark.parametrize(
    ("text", "watts"), [("0.0005", 0), ("0.0015", -2), ("-0.0025", 2), ("-0.00251", 3), ("7", -7000)]
)
def test_halves_go_to_even_and_the_sign_is_turned(text: str, watts: int) -> None:
    assert decode(POWER, f'{{"p": {text}}}')[0].registers == {"power_w": watts}


@given(st.decimals(-(10**6), 10**6, places=6), st.integers(-6, 3))
def test_scaling_equals_rational_arithmetic(value: Decimal, scale: int) -> None:
    with_scale = codec({"power_w": {"pointer": "/p", "unit": "W", "scale": scale}})
    expected = round(Fraction(value) * Fraction(10) ** scale)
    assert decode(with_scale, f'{{"p": {value}}}')[0].registers["power_w"] == expected


TIMES = {
    "ms": [("1463004000123", 1_463_004_000_123)],
    "s": [("1463004000", 1_463_004_000_000), ("1463004000.1239", 1_463_004_000_124), ("1.463004e9", 1_463_004_000_000)],
    "iso8601": [
        ('"2016-05-11T22:00:00Z"', 1_463_004_000_000),
        ('"2016-05-12T00:00:00.1234+02:00"', 1_463_004_000_123),
        ('"20160511T220000+0000"', 1_463_004_000_000),
    ],
}


@pytest.mark.parametrize(
    ("form", "text", "instant"), [(form, *case) for form, cases in TIMES.items() for case in cases]
)
def test_times(form: str, text: str, instant: int) -> None:
    timed = codec({"power_w": {"pointer": "/p", "unit": "W"}}, observed_at={"pointer": "/t", "form": form})
    assert decode(timed, f'{{"p": 1, "t": {text}}}')[0].observed_at == instant


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("ms", '"1463004000123"'),
        ("ms", "1.5"),
        ("ms", "true"),
        ("ms", "-1"),
        ("ms", "1e400"),
        ("ms", "9" * 30),
        ("s", "null"),
        ("s", "1e39"),
        ("iso8601", '"2016-05-11T22:00:00"'),
        ("iso8601", '"yesterday"'),
        ("iso8601", '"0001-01-01T00:00:00+23:59"'),
        ("iso8601", "1463004000"),
        ("iso8601", "{}"),
    ],
)
def test_bad_times(form: str, text: str) -> None:
    timed = codec({"power_w": {"pointer": "/p", "unit": "W"}}, observed_at={"pointer": "/t", "form": form})
    with pytest.raises(DecodeError) as caught:
        decode(timed, f'{{"p": 1, "t": {text}}}')
    assert caught.value.reason in ("bad_time", "out_of_range")


def test_pointers_sequence_numbers_and_lists() -> None:
    many = codec(
        {
            "voltage_mv": {"pointer": "/a~1b/m~0n", "unit": "V"},
            "soc_permille": {"pointer": "/soc", "unit": "%", "required": False},
        },
        items="/readings",
        seq="/n",
        observed_at={"pointer": "/t", "form": "ms"},
    )
    document = {"readings": [{"a/b": {"m~n": 230}, "n": 1, "t": 5}, {"a/b": {"m~n": 231}, "n": 2, "t": 6, "soc": 50}]}
    one, two = decode(many, json.dumps(document))
    assert (one.registers, one.seq, one.observed_at) == ({"voltage_mv": 230_000}, 1, 5)
    assert (two.registers, two.seq, two.observed_at) == ({"voltage_mv": 231_000, "soc_permille": 500}, 2, 6)


@pytest.mark.parametrize(
    ("state", "flagged"),
    [
        ("", False),
        ("null", False),
        ('"ok"', False),
        ("192", False),
        ("true", False),
        ('"OK"', True),
        ('"192"', True),
        ("0", True),
        ("1", True),
        ("192.0", True),
        ("false", True),
        ("{}", True),
    ],
)
def test_what_the_device_says_of_its_own_value(state: str, flagged: bool) -> None:
    with_quality = codec(
        {"power_w": {"pointer": "/p", "unit": "W"}}, quality={"pointer": "/q", "good": ["ok", 192, True]}
    )
    for nested in ("", ', "x": {"y": 1.5}'):  # both ways of parsing
        text = f'{{"p": 1{nested}' + (f', "q": {state}}}' if state else "}")
        (measurement,) = decode(with_quality, text)
        assert measurement.notice is (Notice.DEVICE_FLAGGED if flagged else Notice.NONE)
        assert measurement.registers == {"power_w": 1}


REFUSED = [
    (b"", "not_json"),
    (b"\x80", "not_utf8"),
    (b"nul", "not_json"),
    (b"[" * 100_000, "not_json"),
    (b"{}", "missing_field"),
    (b'{"energy": []}', "missing_field"),
    (b'{"energy": {"0": {"in": null}}}', "missing_field"),
    (b'{"energy": [{"in": "1"}]}', "not_a_number"),
    (b'{"energy": [{"in": true}]}', "not_a_number"),
    (b'{"energy": [{"in": {}}]}', "not_a_number"),
    (b'{"energy": [{"in": NaN}]}', "not_a_number"),
    (b'{"energy": [{"in": -Infinity}]}', "not_a_number"),
    (b'{"energy": [{"in": 1e999999999}]}', "out_of_range"),
    (b'{"energy": [{"in": 1e-999999999}]}', "out_of_range"),
    (b'{"energy": [{"in": ' + b"9" * 5000 + b"}]}", "not_json"),
    (b'{"energy": [{"in": 0.' + b"9" * 5000 + b"}]}", "not_a_number"),
    (b'{"energy": [{"in": 9007199254740992}]}', "out_of_range"),
    (b'{"energy": [{"in": -0.001}]}', "out_of_range"),
    (b'{"energy": [{"in": 1, "in": 2}]}', "duplicate_name"),
    (b'{"energy":1,"energy":2}', "duplicate_name"),
    (b'{"energy" :1,"energy":2}', "duplicate_name"),
    (b'{"energy":1,"energy"\n:2}', "duplicate_name"),
    (b'{"energy"\t:1,"energy":2}', "duplicate_name"),
]


@pytest.mark.parametrize(("payload", "reason"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_is_refused_and_why(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(ENERGY, payload)
    assert caught.value.reason == reason


EVERYTHING = codec(
    {"import_j": {"pointer": "/a", "unit": "Wh"}, "power_w": {"pointer": "/b/0", "unit": "kW", "required": False}},
    items="",
    seq="/n",
    observed_at={"pointer": "/t", "form": "s"},
    quality={"pointer": "/a", "good": [1]},
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abnt0"), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=500)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_bytes_are_only_decode_error(payload: bytes) -> None:
    for each in (EVERYTHING, ENERGY, POWER):
        try:
            measurements = decode(each, payload)
        except DecodeError as error:
            assert error.reason and error.reason == error.reason.lower()
        else:
            assert all(type(value) is int for one in measurements for value in one.registers.values())


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"registers": {}}, "at least 1"),
        ({"registers": {"energy": {"pointer": "/e", "unit": "Wh"}}}, "unknown register"),
        ({"registers": {"import_j": {"pointer": "/e", "unit": "kW"}}}, "cannot be given in kW"),
        ({"registers": {"import_j": {"pointer": "e", "unit": "J"}}}, "pattern"),
        ({"registers": {"import_j": {"pointer": "/e", "unit": "J", "factor": 2}}}, "Extra inputs"),
        (
            {"registers": {"import_j": {"pointer": "/e", "unit": "J"}}, "quality": {"pointer": "/q", "good": []}},
            "at least 1",
        ),
    ],
)
def test_mappings_that_make_no_sense(mapping: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        JsonMapping.model_validate(mapping)
