"""Objects to registers: by hand, and the quick way held against the long one."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_adapters.lwm2m.coap.codes import LWM2M_CBOR, SENML_CBOR, SENML_JSON, TEXT, TLV
from flexrelay_adapters.lwm2m.codec import Lwm2mCodec, Override, channel
from flexrelay_adapters.lwm2m.formats import Record, encode
from flexrelay_adapters.lwm2m.objects import QUANTITIES, UNITS
from flexrelay_schemas.reading import REGISTERS
from flexrelay_sdk import DecodeError, Frame

NOW = 1_700_000_000_123


def frame(payload: bytes, content_format: int = SENML_CBOR, path: str = "/dp") -> Frame:
    return Frame("lwm2m", "meter", payload, NOW, channel(path, content_format))


def registers(values: dict[str, Any], codec: Lwm2mCodec | None = None, **units: str) -> dict[str, int]:
    pack = [{0: path, (3 if isinstance(value, str) else 2): value} for path, value in values.items()]
    (measurement,) = (codec or Lwm2mCodec()).decode(frame(cbor2.dumps(pack))).measurements
    return dict(measurement.registers)


def test_the_table_is_sound() -> None:
    for key, quantity in QUANTITIES.items():
        assert quantity.register in REGISTERS, key
        assert UNITS[quantity.unit][0] == quantity.register.rpartition("_")[2], key


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"/3305/0/5800": 1234.4, "/3305/0/5805": 2, "/3305/0/5810": -3},
            {"power_w": 1234, "import_j": 7200, "reactive_var": -3},
        ),
        ({"/3331/0/5700": 1.5}, {"import_j": 5400}),
        ({"/3331/0/5700": 1.5, "/3331/0/5701": "kWh"}, {"import_j": 5_400_000}),
        ({"/3316/0/5700": 230.15, "/3317/0/5700": 0.016}, {"voltage_mv": 230_150, "current_ma": 16}),
        ({"/3328/0/5700": 3, "/3328/0/5701": "kW"}, {"power_w": 3000}),
        ({"/3328/0/5700": 3, "/3305/0/5800": 4}, {"power_w": 4}),
        ({"/3411/0/1": 55, "/3318/0/5700": 50.0, "/3329/0/5700": 0.98}, {"soc_permille": 550}),
        ({"/3421/0/16": 500.0, "/3421/0/17": 0.0, "/3421/0/25": 1}, {"power_w": 500, "import_j": 3600}),
        ({"/3421/0/16": 0.0, "/3421/0/17": 700.0, "/3421/0/26": 2}, {"power_w": -700, "export_j": 7200}),
        ({"/3421/0/17": 700.0}, {"power_w": -700}),
        ({"/3421/0/16": 5.0, "/3421/0/17": 0.0, "/3421/0/23": -9}, {"power_w": -9}),
        (
            {"/3422/0/8": 9, "/3422/0/10": 4, "/3422/0/11": 1, "/3422/0/4": 2},
            {"power_w": 9, "reactive_var": 3, "current_ma": 2000},
        ),
        (
            {"/10242/0/34": 1.5, "/10242/0/35": 0.25, "/10242/0/41": 2},
            {"power_w": 1500, "reactive_var": 250, "import_j": 7_200_000},
        ),
        (
            {"/10243/0/4": "229.9", "/10243/0/6": 0.1, "/10243/0/14": 1},
            {"voltage_mv": 229_900, "power_w": 100, "import_j": 3_600_000},
        ),
        ({"/3305/0/5800": 1, "/3305/1/5800": 99}, {"power_w": 1}),
    ],
)
def test_energy_objects(values: dict[str, Any], expected: dict[str, int]) -> None:
    codec = Lwm2mCodec()
    assert registers(values, codec) == expected
    assert registers(values, codec) == expected  # now by the quick way, where there is one


def test_every_format_says_the_same() -> None:
    records = [Record((3305, 0, 5800), 1234.5), Record((3305, 0, 5805), 2.0)]
    codec = Lwm2mCodec()
    for content_format in (SENML_CBOR, SENML_JSON, TLV, LWM2M_CBOR):
        payload = encode(content_format, records, (3305, 0))
        (measurement,) = codec.decode(frame(payload, content_format, "/3305/0")).measurements
        assert measurement.registers == {"power_w": 1234, "import_j": 7200}
        assert measurement.observed_at == NOW
    (measurement,) = codec.decode(frame(b"1234.5", TEXT, "/3305/0/5800")).measurements
    assert measurement.registers == {"power_w": 1234}
    (measurement,) = codec.decode(
        frame(encode(TLV, [Record((3411, 0, 1), 80)], (3411, 0)), TLV, "/3411/0")
    ).measurements
    assert measurement.registers == {"soc_permille": 800}


def test_times() -> None:
    pack = [
        {-3: 1_699_999_000, 0: "/3305/0/5800", 2: 1},
        {0: "/3305/0/5800", 2: 2, 6: 0.5},
        {0: "/3316/0/5700", 2: 230},
    ]
    codec = Lwm2mCodec()
    for _ in range(2):
        measurements = codec.decode(frame(cbor2.dumps(pack))).measurements
        assert [(m.observed_at, m.registers) for m in measurements] == [
            (1_699_999_000_000, {"power_w": 1, "voltage_mv": 230_000}),
            (1_699_999_000_500, {"power_w": 2}),
        ]
    (measurement,) = codec.decode(frame(cbor2.dumps([{0: "/3305/0/5800", 2: 1, 6: -60}]))).measurements
    assert measurement.observed_at == NOW - 60_000


def test_overrides() -> None:
    codec = Lwm2mCodec(
        {
            "/3305/0/5800": Override("power_w", "kW", negate=True),
            "/3305/1/5800": Override("", ""),
            "/3303/2/5700": Override("reactive_var", "var"),
        }
    )
    for _ in range(2):
        assert registers({"/3305/0/5800": 1.5, "/3305/1/5800": 7, "/3303/2/5700": 4}, codec) == {
            "power_w": -1500,
            "reactive_var": 4,
        }
    with pytest.raises(ValueError, match="cannot be given"):
        Lwm2mCodec({"/3305/0/5800": Override("power_w", "V")})


@pytest.mark.parametrize(
    ("pack", "reason"),
    [
        ([[0, 2]], "not_senml"),
        ([{0: "/3305/0/5800", 2: 1, 1: 5}], "not_senml"),
        ([{0: "/3305/0/5800", 2: 1, 1: [1]}], "not_senml"),
        (["ab", {0: "/3305/0/5800", 2: 1}], "not_senml"),
        ([{0: "/3305/0/5805", 2: -1}], "out_of_range"),
        ([{0: "/3305/0/5800", 2: 1e300}], "out_of_range"),
        ([{0: "/3305/0/5800", 3: "many"}], "not_a_number"),
        ([{0: "/3305/0/5800", 2: 1, 1: "V"}], "bad_unit"),
        ([{0: "/3318/0/5700", 2: 50}], "no_measurement"),
        ([{0: "/3305/0/5800", 2: 1, 6: 1e14}], "bad_time"),
    ],
)
def test_refuses(pack: list[Any], reason: str) -> None:
    with pytest.raises(DecodeError) as error:
        Lwm2mCodec().decode(frame(cbor2.dumps(pack)))
    assert error.value.reason == reason


def test_unknown_channels_are_refused() -> None:
    codec = Lwm2mCodec()
    for text in ("", "/dp", "/dp?ct=x", "/a?ct=112"):
        assert not codec.reads(text)
        with pytest.raises(DecodeError):
            codec.decode(Frame("lwm2m", "m", b"", NOW, text))
    assert codec.reads("/dp?ct=112") and codec.reads("/3305/0?ct=11542")


NAMES = st.sampled_from(
    [
        "/3305/0/5800",
        "/3305/0/5805",
        "/3316/0/5700",
        "/3316/0/5701",
        "/3318/0/5700",
        "/3421/0/16",
        "/3421/0/17",
        "/3421/0/23",
        "/3305/1/5800",
        "/3411/0/1",
        "/10243/0/4",
        "/3/0/0",
        "/bad",
        "",
        "3305/0/5800",
    ]
)
NUMBERS = st.one_of(
    st.integers(-(10**7), 10**17), st.floats(), st.sampled_from([0.5, 1.5, 2.5, 0.0005, 1e300, 0.1388888888888889])
)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        0: NAMES,
        2: st.one_of(NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.none()),
        3: st.sampled_from(["V", "kW", "7"]),
        6: st.one_of(st.integers(-100, 100), st.floats(), st.just(1_700_000_000)),
        -3: st.one_of(st.just(1_700_000_000), NUMBERS),
        -2: st.sampled_from(["/", "", "/3305/0/"]),
        1: st.sampled_from(["W", "kWh", "?"]),
        -5: st.just(4),
        9: st.just(1),
    },
)


SOUND = st.fixed_dictionaries(
    {
        0: st.sampled_from(["/3305/0/5800", "/3305/0/5805", "/3316/0/5700", "/3318/0/5700", "/3411/0/1"]),
        2: st.integers(0, 99),
    },
    optional={6: st.integers(-3, 3), -3: st.just(1_700_000_000)},
)


@given(st.one_of(st.lists(SOUND, min_size=1, max_size=8), st.lists(st.one_of(SOUND, ITEMS), max_size=6)))
@settings(max_examples=1500)
def test_the_quick_way_does_what_the_long_one_does(pack: list[dict[int, Any]]) -> None:
    quick, long = _QUICK, Lwm2mCodec()
    long._quick = lambda payload, received_at: None  # type: ignore[method-assign]
    results = []
    for codec in (quick, quick, long):
        try:
            result: Any = {
                m.observed_at: dict(m.registers) for m in codec.decode(frame(cbor2.dumps(pack))).measurements
            }
        except DecodeError as error:
            result = error.reason
        results.append(result)
    assert results[0] == results[1] == results[2]


_QUICK = Lwm2mCodec()
