"""HTTP/2 byte by byte: what a peer may send, what it must not, and windows that are full."""

import struct

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_chaincode.http2 import PREFACE, Code, Ended, Event, Http2, Message, Opened, ProtocolFault, Status

HEADERS = [(":method", "POST"), (":path", "/protos.Chaincode/Connect"), (":scheme", "https"), ("te", "trailers")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def request(stream: int = 1) -> bytes:
    return frame(1, 4, stream, Encoder().encode(HEADERS))


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


def window(size: int) -> bytes:
    return frame(4, 0, 0, struct.pack(">HI", 4, size))


BEGIN = PREFACE + frame(4, 0, 0)


def opened(max_message: int = 1_000_000, begin: bytes = BEGIN) -> Http2:
    found = Http2(max_message)
    assert found.receive(begin + request()) == [Opened(1, dict(HEADERS))]
    found.accept(1)
    found.outgoing()
    return found


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def test_it_begins_with_settings_and_answers_what_has_an_answer() -> None:
    found = Http2(1_000)
    assert [kind for kind, *_ in frames(found.outgoing())] == [4, 8]
    found.receive(BEGIN + frame(6, 0, 0, b"12345678"))
    assert frames(found.outgoing()) == [(4, 1, 0, b""), (6, 1, 0, b"12345678")]
    found.receive(frame(6, 1, 0, b"12345678") + frame(4, 1, 0) + frame(0x42, 0, 0, b"?") + frame(2, 0, 1, b"12345"))
    assert found.outgoing() == b""


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 64), st.integers(1, 80))
def test_messages_come_whole_however_they_are_cut(sent: list[bytes], frame_size: int, read_size: int) -> None:
    found = Http2(1_000)
    body = b"".join(message(data) for data in sent)
    pieces = [frame(0, 0, 1, body[at : at + frame_size]) for at in range(0, len(body), frame_size)]
    stream = BEGIN + request() + b"".join(pieces) + frame(0, 1, 1)
    events: list[Event] = []
    for at in range(0, len(stream), read_size):
        events += found.receive(stream[at : at + read_size])
    assert events == [Opened(1, dict(HEADERS)), *(Message(1, data) for data in sent), Ended(1)]


def test_padding_priority_and_continuation() -> None:
    found, block = Http2(1_000), Encoder().encode(HEADERS)
    padded = frame(1, 0x8 | 0x20, 1, b"\x03" + bytes(5) + block[:9] + bytes(3)) + frame(9, 4, 1, block[9:])
    data = frame(0, 0x8, 1, b"\x02" + message(b"x") + bytes(2))
    assert found.receive(BEGIN + padded + data) == [Opened(1, dict(HEADERS)), Message(1, b"x")]


@given(st.integers(1, 3_000), st.lists(st.integers(1, 4_000), min_size=1, max_size=30), st.integers(1, 40_000))
@settings(max_examples=60)
def test_nothing_leaves_that_the_window_has_no_room_for(first: int, grants: list[int], size: int) -> None:
    found = opened(begin=PREFACE + window(first))
    found.send(1, b"v" * size)
    found.finish(1)
    room, body = first, b""
    for more in [0, *grants, 50_000]:
        if more:
            room += more
            found.receive(frame(8, 0, 1, more.to_bytes(4, "big")))
        for kind, _, _, payload in frames(found.outgoing()):
            if kind == 0:
                room, body = room - len(payload), body + payload
        assert room >= 0
    assert body == message(b"v" * size)


def test_the_connections_window_counts_for_all_streams() -> None:
    found = opened(begin=PREFACE + window(1 << 30))
    found.receive(request(3))
    found.send(1, b"a" * 40_000)
    found.send(3, b"b" * 40_000)
    sent = sum(len(payload) for kind, _, _, payload in frames(found.outgoing()) if kind == 0)
    assert sent == 65_535
    found.receive(frame(8, 0, 0, (100_000).to_bytes(4, "big")))
    assert sent + sum(len(p) for kind, _, _, p in frames(found.outgoing()) if kind == 0) == 80_010


def test_an_end_with_a_status_can_be_read_by_any_decoder() -> None:
    found = opened()
    found.finish(1, Status.FAILED_PRECONDITION, "100 % – no" + "x" * 300)
    found.send(1, b"too late")
    (kind, flags, stream, block), reset = frames(found.outgoing())
    assert (kind, flags, stream, reset[0]) == (1, 5, 1, 3)
    headers = dict(Decoder().decode(block))
    assert headers == {"grpc-status": "9", "grpc-message": "100 %25 %E2%80%93 no" + "x" * 300}


@pytest.mark.parametrize("prefix", [b"\x01\0\0\0\x01x", b"\0\x7f\xff\xff\xff"])
def test_compressed_and_oversized_messages_end_their_stream_only(prefix: bytes) -> None:
    found = opened()
    assert found.receive(frame(0, 0, 1, prefix)) == [Ended(1)]
    assert found.receive(frame(0, 0, 1, b"more") + request(3)) == [Opened(3, dict(HEADERS))]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Code.PROTOCOL_ERROR),
        (PREFACE + frame(6, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
        (BEGIN + frame(0, 0, 1, b"x"), Code.PROTOCOL_ERROR),
        (BEGIN + frame(1, 4, 2, b""), Code.PROTOCOL_ERROR),
        (BEGIN + request(3) + frame(1, 4, 1, b""), Code.PROTOCOL_ERROR),
        (BEGIN + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
        (BEGIN + frame(1, 0, 1, b"") + frame(0, 0, 1, b""), Code.PROTOCOL_ERROR),
        (BEGIN + frame(9, 4, 1, b""), Code.PROTOCOL_ERROR),
        (BEGIN + frame(1, 0, 1, b"") + frame(9, 0, 1, bytes(70_000)), Code.ENHANCE_YOUR_CALM),
        (BEGIN + frame(0, 8, 1, b"\x09x"), Code.PROTOCOL_ERROR),
        (BEGIN + frame(8, 0, 0, b"\x7f\xff\xff\xff"), Code.FLOW_CONTROL_ERROR),
        (BEGIN + frame(8, 0, 0, bytes(4)), Code.PROTOCOL_ERROR),
        (BEGIN + b"\xff\xff\xff\0\0\0\0\0\x01", Code.FRAME_SIZE_ERROR),
        (BEGIN + frame(5, 4, 1, b""), Code.PROTOCOL_ERROR),
    ],
)
def test_who_breaks_the_protocol_is_told(data: bytes, code: Code) -> None:
    found = Http2(1_000)
    with pytest.raises(ProtocolFault) as raised:
        found.receive(data)
    assert raised.value.code == code


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)), max_size=8)
)
@settings(max_examples=300)
def test_any_frames_give_events_or_a_fault(sent: list[tuple[int, int, int, bytes]]) -> None:
    found = opened()
    try:
        for item in sent:
            found.receive(frame(*item))
            found.send(1, b"answer")
        found.receive(request(101))
    except ProtocolFault as fault:
        found.goodbye(fault.code)
        assert found.outgoing()
        return
    found.send(101, b"still here")
    assert b"still here" in found.outgoing() or sent


def test_a_stream_that_is_reset_is_over_and_too_many_are_refused() -> None:
    found = opened()
    assert found.receive(frame(3, 0, 1, bytes(4))) == [Ended(1)]
    found.send(1, b"late")
    assert found.outgoing() == b""
    for number in range(16):
        found.receive(request(3 + 2 * number))
    assert found.receive(request(99)) == []
    assert frames(found.outgoing()) == [(3, 0, 99, b"\0\0\0\x07")]
