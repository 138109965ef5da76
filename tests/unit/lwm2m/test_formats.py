"""Content formats: there and back, the documents' own examples, and whatever bytes come."""

from __future__ import annotations

from decimal import Decimal

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_adapters.lwm2m.coap.codes import LWM2M_CBOR, OPAQUE, SENML_CBOR, SENML_JSON, TEXT, TLV
from flexrelay_adapters.lwm2m.formats import FORMATS, FormatError, Record, decode, encode, parse_path
from flexrelay_adapters.lwm2m.formats.tlv import integer, number

NOW = 1_700_000_000.0
IDS = st.integers(0, 65_535)
VALUES = st.one_of(
    st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=30), st.booleans()
)
PATHS = st.one_of(st.tuples(st.just(3305), st.just(0), IDS), st.tuples(st.just(3305), st.just(0), IDS, IDS))


@given(st.dictionaries(PATHS, VALUES, min_size=1, max_size=20))
def test_senml_there_and_back(values: dict[tuple[int, ...], object]) -> None:
    records = [Record(path, value) for path, value in values.items()]  # type: ignore[arg-type]
    for content_format in (SENML_CBOR, SENML_JSON):
        assert decode(content_format, encode(content_format, records, ()), (), NOW) == records


@given(st.dictionaries(st.tuples(st.just(3305), st.just(0), IDS), VALUES, min_size=1, max_size=20))
def test_tlv_there_and_back(values: dict[tuple[int, ...], object]) -> None:
    records = [Record(path, value) for path, value in values.items()]  # type: ignore[arg-type]
    for base in ((3305, 0), (3305,)):
        for record in decode(TLV, encode(TLV, records, base), base, NOW):
            value, written = record.value, values[record.path]
            assert isinstance(value, bytes)
            if isinstance(written, str):
                assert value.decode() == written
            elif isinstance(written, float):
                assert number(value) == written
            else:
                assert isinstance(written, int) and integer(value) == written


@given(st.dictionaries(st.tuples(IDS, IDS, IDS), VALUES, min_size=1, max_size=20))
def test_lwm2m_cbor_there_and_back(values: dict[tuple[int, ...], object]) -> None:
    records = [Record(path, value) for path, value in values.items()]  # type: ignore[arg-type]
    assert set(decode(LWM2M_CBOR, encode(LWM2M_CBOR, records, ()), (), NOW)) == set(records)


def test_base_fields_and_times_of_senml() -> None:
    pack = [
        {"bn": "/3305/0/", "bt": 1_700_000_100, "bu": "kW", "n": "5800", "v": 1.5},
        {"n": "5800", "t": -5, "v": 2},
        {"bn": "/3316/0/", "bt": 0, "n": "5700", "t": -10, "u": "V", "v": 230},
    ]
    assert decode(SENML_CBOR, cbor2.dumps([_numbers(item) for item in pack]), (), NOW) == [
        Record((3305, 0, 5800), 1.5, 1_700_000_100.0, "kW"),
        Record((3305, 0, 5800), 2, 1_700_000_095.0, "kW"),
        Record((3316, 0, 5700), 230, NOW - 10, "V"),
    ]


def _numbers(item: dict[str, object]) -> dict[int, object]:
    labels = {"bn": -2, "bt": -3, "bu": -4, "n": 0, "u": 1, "v": 2, "t": 6}
    return {labels[name]: value for name, value in item.items()}


def test_decimal_fractions_of_cbor() -> None:
    (record,) = decode(SENML_CBOR, cbor2.dumps([{0: "/3305/0/5800", 2: Decimal("1.25")}]), (), NOW)
    assert record.value == Decimal("1.25")


def test_a_tlv_object_by_hand() -> None:
    """Two instances; the second's resource 1 has two resource instances with identifiers of two bytes."""
    inner = bytes.fromhex("61 0100 05") + bytes.fromhex("61 0101 06")
    second = bytes([0b10_0_01_000, 1, len(inner)]) + inner
    data = bytes.fromhex("08 00 03 c1 05 2a") + bytes([0b00_0_01_000, 1, len(second)]) + second
    assert decode(TLV, data, (9,), NOW) == [
        Record((9, 0, 5), b"\x2a"),
        Record((9, 1, 1, 256), b"\x05"),
        Record((9, 1, 1, 257), b"\x06"),
    ]


def test_lwm2m_cbor_with_paths_as_keys() -> None:
    document = {(3305, 0): {5800: 12.5, (5750, 1): "a"}, 3316: {0: {5700: 230}}}
    assert decode(LWM2M_CBOR, cbor2.dumps(document), (), NOW) == [
        Record((3305, 0, 5800), 12.5),
        Record((3305, 0, 5750, 1), "a"),
        Record((3316, 0, 5700), 230),
    ]


def test_text_and_opaque() -> None:
    assert decode(TEXT, b"12.5", (3305, 0, 5800), NOW) == [Record((3305, 0, 5800), "12.5")]
    assert decode(OPAQUE, b"\0\1", (5, 0, 0), NOW) == [Record((5, 0, 0), b"\0\1")]
    assert encode(TEXT, [Record((1, 0, 1), 1e-7)], (1, 0, 1)) == b"0.0000001"
    assert encode(TEXT, [Record((1, 0, 1), True)], (1, 0, 1)) == b"1"


@pytest.mark.parametrize(
    ("content_format", "payload", "reason"),
    [
        (SENML_CBOR, b"", "not_cbor"),
        (SENML_CBOR, cbor2.dumps([]), "not_senml"),
        (SENML_CBOR, cbor2.dumps([{0: "/a/b", 2: 1}]), "bad_path"),
        (SENML_CBOR, cbor2.dumps([{0: "/1/2/99999", 2: 1}]), "bad_path"),
        (SENML_CBOR, cbor2.dumps([{0: "/1/0/1", 2: True}]), "not_a_number"),
        (SENML_CBOR, cbor2.dumps([{0: "/1/0/1", 2: 1, 6: "now"}]), "bad_time"),
        (SENML_CBOR, cbor2.dumps([{0: "/1/0/1", 4: 1}]), "not_senml"),
        (SENML_JSON, b'[{"n": "/1/0/1", "vd": "%"}]', "not_senml"),
        (SENML_JSON, b"[" * 10_000, "not_json"),
        (SENML_CBOR, b"\x81" * 10_000, "not_cbor"),
        (TLV, b"\xc8\x01\xff", "not_tlv"),
        (TEXT, b"\xff", "not_utf8"),
        (LWM2M_CBOR, cbor2.dumps({3305: {0: {5800: [1]}}}), "not_lwm2m_cbor"),
        (LWM2M_CBOR, cbor2.dumps({-1: {0: {1: 1}}}), "bad_path"),
        (9999, b"", "unknown_format"),
    ],
)
def test_says_what_is_wrong(content_format: int, payload: bytes, reason: str) -> None:
    with pytest.raises(FormatError) as error:
        decode(content_format, payload, (3305, 0, 5800), NOW)
    assert error.value.reason == reason


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=120), st.sampled_from([(), (1,), (1, 0), (1, 0, 1)]))
@settings(max_examples=2000)
def test_any_bytes_are_records_or_refused(content_format: int, payload: bytes, base: tuple[int, ...]) -> None:
    try:
        records = decode(content_format, payload, base, NOW)
    except FormatError as error:
        assert error.reason
        return
    assert all(isinstance(record, Record) for record in records)


@given(st.text(max_size=30))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = parse_path(text)
    except FormatError:
        return
    assert len(path) <= 4 and all(0 <= part <= 65_535 for part in path)


def nested_instances(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x10\x00" + len(data).to_bytes(2, "big") + data
    return data


def shared_maps(width: int) -> bytes:
    """Three maps of `width` entries each, which are all the one map below: tags 28 and 29 of CBOR."""
    below = b"\xd8\x1c\xa0"
    for level in range(3):
        keys = [cbor2.dumps(key) for key in range(width)]
        entries = keys[0] + below + b"".join(key + b"\xd8\x1d" + cbor2.dumps(2 - level + 1) for key in keys[1:])
        below = b"\xd8\x1c" + b"\xb9" + width.to_bytes(2, "big") + entries
    return below


@pytest.mark.parametrize(
    ("content_format", "payload", "reason"),
    [
        (SENML_CBOR, cbor2.dumps([{0: "/3305/0/5800", 2: 2**20_000}]), "out_of_range"),
        (SENML_CBOR, cbor2.dumps([{-5: 1.5, 0: "/3305/0/5800", 2: 2**2_000}]), "out_of_range"),
        (SENML_CBOR, cbor2.dumps([{-5: 1, 0: "/3305/0/5800", 2: cbor2.CBORTag(4, [9**17, 1])}]), "not_a_number"),
        (LWM2M_CBOR, cbor2.dumps({3305: {0: {5800: 2**20_000}}}), "out_of_range"),
        (LWM2M_CBOR, cbor2.dumps({2**20_000: 1}), "bad_path"),
        (LWM2M_CBOR, bytes.fromhex("d81c a1 80 d81d00"), "bad_path"),  # the map itself, under a path of no parts
        (LWM2M_CBOR, shared_maps(300), "too_many"),  # a few kB that would be 27 million entries
        (TLV, nested_instances(3_000), "not_tlv"),
    ],
)
def test_what_only_malice_writes_is_refused(content_format: int, payload: bytes, reason: str) -> None:
    with pytest.raises(FormatError) as error:
        decode(content_format, payload, (3305, 0), NOW)
    assert error.value.reason == reason


def test_a_base_value_and_a_decimal_fraction_are_added_exactly() -> None:
    pack = [{-5: 1.5, 0: "/3305/0/5800", 2: Decimal("0.1")}, {0: "/3305/0/5805", 2: 1}]
    assert [record.value for record in decode(SENML_CBOR, cbor2.dumps(pack), (), NOW)] == [Decimal("1.6"), 2.5]
