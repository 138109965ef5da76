"""CoAP messages: against aiocoap's codec, and against random bytes."""

from __future__ import annotations

import aiocoap
import pytest
from aiocoap.numbers.optionnumbers import OptionNumber
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_adapters.lwm2m.coap.message import Message, MessageError, parse, path_options, serialise, uint

OPTIONS = st.lists(st.tuples(st.integers(1, 65_000), st.binary(max_size=300)), max_size=12)
PARTS = (
    st.integers(0, 3),
    st.integers(1, 255),
    st.integers(0, 65_535),
    st.binary(max_size=8),
    OPTIONS,
    st.binary(max_size=600),
)
MESSAGES = st.tuples(*PARTS)


@given(MESSAGES)
def test_what_is_written_is_read(values: tuple[int, int, int, bytes, list[tuple[int, bytes]], bytes]) -> None:
    kind, code, mid, token, options, payload = values
    ordered = tuple(sorted(options, key=lambda option: option[0]))
    assert parse(serialise(*values)) == Message(kind, code, mid, token, ordered, payload)


OTHERS = st.lists(st.tuples(st.integers(2_100, 65_000), st.binary(max_size=300)), max_size=12)
"""Options that aiocoap has no type for (its text options must be UTF-8)."""


@given(st.tuples(*(OTHERS if part is OPTIONS else part for part in PARTS)))
def test_aiocoap_reads_what_is_written(values: tuple[int, int, int, bytes, list[tuple[int, bytes]], bytes]) -> None:
    kind, _, mid, token, options, payload = values
    foreign = aiocoap.Message.decode(serialise(kind, 2, mid, token, options, payload))
    assert (foreign.mtype, foreign.mid, foreign.token, foreign.payload) == (kind, mid, token, payload)
    plain = [(int(o.number), o.encode()) for o in foreign.opt.option_list() if OptionNumber(o.number) == o.number]
    assert {number for number, _ in plain} == {number for number, _ in options}


def test_reads_what_aiocoap_writes() -> None:
    foreign = aiocoap.Message(code=aiocoap.POST, payload=b"payload", uri="coap://h/rd/some/where?ep=a&lt=300")
    foreign.opt.content_format = 11542
    foreign.opt.observe = 5
    foreign.mtype, foreign.mid, foreign.token = aiocoap.CON, 4711, b"tok"
    message = parse(foreign.encode())
    assert (message.kind, message.code, message.mid, message.token) == (0, 2, 4711, b"tok")
    assert message.path() == ("rd", "some", "where") and message.query() == ["ep=a", "lt=300"]
    assert message.uint(12) == 11542 and message.uint(6) == 5 and message.payload == b"payload"


@given(st.binary(max_size=80))
@settings(max_examples=2000)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        message = parse(data)
    except MessageError:
        return
    if message.code:
        again = parse(serialise(*message))
        assert again == message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "bytes"),
        (b"\x00\x01\x00\x01", "version"),
        (b"\x49\x01\x00\x01" + bytes(9), "token"),
        (b"\x42\x01\x00\x01\x00", "token"),
        (b"\x40\x00\x00\x01\x00", "empty message"),
        (b"\x40\x01\x00\x01\xff", "payload marker"),
        (b"\x40\x01\x00\x01\xf0", "reserved"),
        (b"\x40\x01\x00\x01\x13ab", "cut off"),
        (b"\x40\x01\x00\x01" + b"\x00" * 65, "more than 64"),
    ],
)
def test_says_what_is_wrong(data: bytes, why: str) -> None:
    with pytest.raises(MessageError, match=why):
        parse(data)


def test_small_things() -> None:
    assert uint(6, 0) == (6, b"") and uint(12, 256) == (12, b"\x01\x00")
    assert path_options("/rd/a") == [(11, b"rd"), (11, b"a")]
    assert Message(0, 1, 1).option(4) is None and Message(0, 1, 1).uint(4) is None
