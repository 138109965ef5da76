"""Frames → measurements: status, times, units, and that the short way says what the long way says."""

from __future__ import annotations

import struct
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.opcua_frames import AT, item

from flexrelay_adapters.opcua import NodeCodec, OpcuaConfig
from flexrelay_adapters.opcua.frame import CHANGES, head, node_table
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import DecodeError, Frame

NODES = {"power_w": ("ns=2;s=P", "kW"), "import_j": ("ns=2;s=I", "kWh"), "voltage_mv": ("ns=2;s=U", "V")}


def config(**more: Any) -> OpcuaConfig:
    registers = {name: {"node": node, "unit": unit} for name, (node, unit) in NODES.items()}
    section = {"url": "opc.tcp://127.0.0.1:4840", "security": "None", "devices": {"m": {"registers": registers}}}
    return OpcuaConfig.from_section("t", {**section, **more})


TABLE = node_table([(1, "ns=2;s=I"), (2, "ns=2;s=P"), (3, "ns=2;s=U")])


def frame(*items: bytes, shift: int = 0, table: bytes = TABLE) -> Frame:
    return Frame("opcua", "127.0.0.1:4840/m", head(table, CHANGES, shift) + b"".join(items), AT + 5000, "c")


def test_values_of_one_instant_are_one_measurement() -> None:
    codec = NodeCodec(config())
    for number in range(3):  # the first the long way, then the short one
        at = AT + number
        made = codec.decode(frame(item(1, 1.5, source=at), item(2, -0.25, source=at), item(3, 230.1, source=at)))
        (measurement,) = made.measurements
        assert measurement.observed_at == at and measurement.notice is Notice.NONE and made.proof is None
        assert measurement.registers == {"import_j": 5_400_000, "power_w": -250, "voltage_mv": 230_100}


def test_several_instants_come_in_order() -> None:
    codec = NodeCodec(config())
    for _ in range(2):
        made = codec.decode(frame(*(item(2, float(n), source=AT + n) for n in (3, 1, 2)), item(1, 2.0, source=AT + 2)))
        assert [(m.observed_at - AT, dict(m.registers)) for m in made.measurements] == [
            (1, {"power_w": 1000}),
            (2, {"power_w": 2000, "import_j": 7_200_000}),
            (3, {"power_w": 3000}),
        ]


def test_bad_values_are_left_out_and_uncertain_ones_flagged() -> None:
    codec = NodeCodec(config())
    bad, uncertain = 0x808C_0000, 0x4094_0000
    (measurement,) = codec.decode(frame(item(2, 1.0, status=bad), item(3, 2.0))).measurements
    assert measurement.registers == {"voltage_mv": 2000} and measurement.notice is Notice.DEVICE_FLAGGED
    (measurement,) = codec.decode(frame(item(3, 2.0, status=uncertain))).measurements
    assert measurement.registers == {"voltage_mv": 2000} and measurement.notice is Notice.DEVICE_FLAGGED
    (measurement,) = codec.decode(frame(item(3, 2.0, status=0x0000_0400))).measurements  # Good, with an info bit
    assert measurement.notice is Notice.NONE
    (measurement,) = codec.decode(frame(item(3, 2.0, status=0x0000_0480))).measurements  # the queue has run over
    assert measurement.notice is Notice.GAP


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (item(2, 1.0, status=0x8000_0000), "bad_status"),
        (item(2, float("nan")), "not_a_number"),
        (item(2, float("inf")), "not_a_number"),
        (item(2, 1e300), "out_of_range"),
        (item(1, -1.0), "out_of_range"),
        (item(2, True, "?"), "not_a_number"),
        (item(9, 1.0), "unknown_node"),
        (struct.pack("<IB", 2, 0), "no_value"),
        (struct.pack("<IBBi", 2, 1, 12, 2) + b"hi", "no_value"),
        (b"", "no_value"),
        (item(2, 1.0)[:-1], "malformed"),
    ],
)
def test_reasons(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as error:
        NodeCodec(config()).decode(frame(payload))
    assert error.value.reason == reason


@pytest.mark.parametrize("payload", [b"", b"OUA2\0\0\0\0", b"OUA1\0\0\xff\xff", b"OUA1\x07\0\0\0", b"OUA1\0\0\2\0\1\2"])
def test_no_frames(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        NodeCodec(config()).decode(Frame("opcua", "127.0.0.1:4840/m", payload, AT))
    with pytest.raises(DecodeError) as error:
        NodeCodec(config()).decode(frame(item(2, 1.0))._replace(credential="other"))
    assert error.value.reason == "unknown_device"


def test_which_time_counts() -> None:
    source, server = AT, AT + 700
    by_server = NodeCodec(config(time="server"))
    for codec, expected in ((NodeCodec(config()), source), (by_server, server)):
        for _ in range(2):
            made = codec.decode(frame(item(2, 1.0, source=source, server=server)))
            assert made.measurements[0].observed_at == expected
    assert NodeCodec(config()).decode(frame(item(2, 1.0, source=0))).measurements[0].observed_at == AT
    assert NodeCodec(config()).decode(frame(item(2, 1.0, source=0, server=0))).measurements[0].observed_at == AT + 5000
    assert NodeCodec(config()).decode(frame(item(2, 1.0), shift=3)).measurements[0].observed_at == AT + 3


def exact(value: float, factor: int) -> int:
    return int((Decimal(repr(value)) * factor).to_integral_value(ROUND_HALF_EVEN))


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.floats(-1e9, 1e9, allow_nan=False),
        st.integers(-(10**9), 10**9).map(lambda n: n / 1000),
        st.integers(-(10**9), 10**9).map(lambda n: n / 10000),
    )
)
def test_numbers_are_rounded_exactly(value: float) -> None:
    codec = NodeCodec(config())
    for _ in range(2):
        made = codec.decode(frame(item(2, value)))
        assert made.measurements[0].registers["power_w"] == exact(value, 1000)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**6), 10**6))
def test_singles_are_the_decimal_that_was_meant(tenths: int) -> None:
    codec = NodeCodec(config())
    single = struct.unpack("<f", struct.pack("<f", tenths / 10))[0]
    for _ in range(2):
        assert codec.decode(frame(item(2, single, "f"))).measurements[0].registers["power_w"] == tenths * 100


@st.composite
def frames(draw: Any) -> list[Frame]:
    """Frames of one length whose items change."""
    layout = draw(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("dfiqH")), min_size=1, max_size=5))
    made = []
    for _ in range(4):
        items = []
        for handle, code in layout:
            low = 0 if code == "H" else -30_000
            value = draw(st.integers(low, 30_000)) if code not in "df" else draw(st.floats(-1e6, 1e6, width=32))
            status = draw(st.sampled_from([0, 0, 0, 0x4000_0000, 0x8000_0000]))
            items.append(item(handle, value, code, source=draw(st.sampled_from([AT, AT, AT + 1])), status=status))
        made.append(frame(*items))
    return made


@settings(max_examples=200, deadline=None)
@given(frames())
def test_the_short_way_says_what_the_long_way_says(made: list[Frame]) -> None:
    short, long = NodeCodec(config()), NodeCodec(config(), fast=False)
    for each in made * 2:
        try:
            expected = long.decode(each)
        except DecodeError as error:
            with pytest.raises(DecodeError) as other:
                short.decode(each)
            assert other.value.reason == error.reason
        else:
            assert short.decode(each) == expected
