"""Numbers in registers, the polling plan, frames and configuration."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_adapters.modbus import ModbusCodec, ModbusConfig
from flexrelay_adapters.modbus.frame import NOWHERE, Block, Found, head_length, open_head, pack_head
from flexrelay_adapters.modbus.orders import Impossible, plain_order, plain_reverts
from flexrelay_adapters.modbus.plan import blocks_of
from flexrelay_adapters.modbus.sunspec import FLAGS, MODELS_KNOWN, READINGS, point, points
from flexrelay_adapters.modbus.values import Format, Span
from flexrelay_sdk import DecodeError, Frame


@pytest.mark.parametrize(
    ("words", "order", "expected"),
    [
        ("big", "big", "0102030405060708"), ("little", "little", "0807060504030201"),
        ("little", "big", "0708050603040102"), ("big", "little", "0201040306050807"),
    ],
)  # fmt: skip
def test_orders_of_words_and_bytes(words: Any, order: Any, expected: str) -> None:
    form = Format("u64", words, order)
    registers = form.registers(0x0102030405060708)
    data = b"".join(each.to_bytes(2, "big") for each in registers)
    assert data.hex() == expected
    assert form.read(data, 0) == 0x0102030405060708


def test_absent_values_and_numbers_that_do_not_fit() -> None:
    assert Format("s16", absent=(-0x8000,)).read(b"\x80\0", 0) is None
    assert Format("float32").read(struct.pack(">f", float("nan")), 0) is None
    assert Format("s16").registers(Decimal("-2.5")) == [0xFFFE]
    for kind, value in (("u16", -1), ("u16", 65_536), ("s16", 40_000), ("u32", 2**32)):
        with pytest.raises(ValueError, match="is no"):
            Format(kind).registers(value)  # type: ignore[arg-type]  # of the table
    with pytest.raises(ValueError, match="is no"):
        Format("u16", absent=(0xFFFF,)).registers(0xFFFF)


spans = st.builds(Span, st.sampled_from(["holding", "input"]), st.integers(0, 2_000), st.integers(1, 4))


@given(st.lists(spans, min_size=1, max_size=40), st.integers(0, 124), st.integers(8, 125))
def test_every_span_lies_whole_in_one_block(wanted: list[Span], gap: int, most: int) -> None:
    blocks = blocks_of(wanted, max_gap=gap, max_count=most)
    assert all(block.size <= most for block in blocks)
    for span in wanted:
        assert any(b.table == span.table and b.address <= span.address and span.end <= b.end for b in blocks)
    read = sum(block.size for block in blocks)
    assert read <= sum(span.size for span in set(wanted)) + gap * len(wanted)


def test_a_plan_reads_neighbours_together() -> None:
    wanted = [Span("holding", 10, 2), Span("holding", 14, 1), Span("holding", 40, 2), Span("input", 10, 1)]
    assert blocks_of(wanted, max_gap=8) == (Span("holding", 10, 5), Span("holding", 40, 2), Span("input", 10, 1))
    assert blocks_of([Span("holding", 0, 100), Span("holding", 100, 26)]) == (
        Span("holding", 0, 100), Span("holding", 100, 26),
    )  # fmt: skip
    with pytest.raises(ValueError, match="one request"):
        blocks_of([Span("holding", 0, 126)])


def test_heads_there_and_back() -> None:
    blocks = (Block(Span("holding", 40_000, 125)), Block(Span("input", 7, 1), 2))
    head = pack_head(b"12345678", Span("holding", 52, 16), "SN-ü", [Found(103, 40_070, 50)], blocks)
    assert head_length(head + b"xy") == len(head)
    assert open_head(head) == (b"12345678", Span("holding", 52, 16), "SN-ü", (Found(103, 40_070, 50),), blocks)
    for end in range(len(head)):
        with pytest.raises(DecodeError):
            open_head(head[: head_length(head[:end])])


def test_the_points_that_are_used_are_there() -> None:
    assert {1, 103, 113, 120, 121, 123, 124, 160, 203, 701, 702, 704, 713, 802} <= set(MODELS_KNOWN())
    for registers in READINGS.values():
        for choices in registers.values():
            for choice in choices:
                each = point(choice.model, choice.point)
                assert each.format.size == each.size
                assert not each.scale or each.scale in points(choice.model)
    assert all(point(model, name) for model, flags in FLAGS.items() for name, _ in flags)
    assert point(103, "W").offset == 14 and point(701, "TotWhAbs").offset == 23 and point(124, "InWRte").offset == 13


def config(**device: Any) -> ModbusConfig:
    return ModbusConfig.from_section("plant", {"devices": {"d": {"endpoint": "192.0.2.1:502", **device}}})


def test_a_frame_of_another_configuration_is_refused() -> None:
    power = {"power_w": {"address": 1, "type": "s16", "unit": "W"}}
    head = pack_head(config(registers=power).devices["d"].plan, NOWHERE, "", [], [Block(Span("holding", 1, 1))])
    frame = Frame("modbus", "192.0.2.1:502/1", head + b"\0\x05", 1_700_000_000_000)
    assert ModbusCodec(config(registers=power)).decode(frame).measurements[0].registers == {"power_w": 5}
    other = config(registers={"power_w": {"address": 1, "type": "s16", "unit": "kW"}})
    with pytest.raises(DecodeError, match="unknown_plan"):
        ModbusCodec(other).decode(frame)
    with pytest.raises(DecodeError, match="cut_off"):
        ModbusCodec(config(registers=power)).decode(frame._replace(payload=head + b"\0"))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({}, "either sunspec or registers"),
        ({"sunspec": "meter", "commands": {"switch": [{"address": 1, "type": "u16", "parameter": "on"}]}}, "control"),
        ({"registers": {"power_w": {"address": 1, "type": "s16", "unit": "kWh"}}}, "cannot be given in"),
        ({"registers": {"power_w": {"address": 65_535, "type": "s32", "unit": "W"}}}, "beyond"),
        ({"sunspec": "meter", "endpoint": "192.0.2.1:0"}, "port"),
        ({"registers": {"power_w": {"address": 1, "type": "s16", "unit": "W"}}, "serial": "x"}, "serial_at"),
    ],
)
def test_configurations_that_cannot_be(device: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^devices\.d.*{message}"):
        config(**device)


def test_two_devices_are_not_one() -> None:
    devices = {name: {"endpoint": "192.0.2.1:502", "sunspec": "meter"} for name in "ab"}
    with pytest.raises(ValueError, match="same endpoint and unit"):
        ModbusConfig.from_section("plant", {"devices": devices})


def test_a_plain_command_in_the_devices_unit() -> None:
    steps = [
        {"address": 5, "type": "s16", "parameter": "power_w", "unit": "kW", "scale": -1, "negate": True, "revert": 0},
        {"address": 9, "type": "u16", "value": 1},
    ]
    power = {"power_w": {"address": 1, "type": "s16", "unit": "W"}}
    route = config(registers=power, commands={"set_power": steps}).devices["d"].commands["set_power"]
    order = plain_order(route, {"power_w": -1_200})
    assert [(write.address, write.registers) for write in order.writes] == [(5, (12,)), (9, (1,))]
    assert [(write.address, write.registers) for write in plain_reverts(route)] == [(5, (0,))]
    with pytest.raises(Impossible, match="register 5"):
        plain_order(route, {"power_w": 10**9})
