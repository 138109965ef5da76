"""What is cut out of the broker's bytes, whatever pieces they come in, and what is left for the MQTT engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_adapters.mqtt._publish import Publish, PublishCutter, puback

PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x04\x00\x01\x00\x01"


def length(value: int) -> bytes:
    found = b""
    while True:
        value, digit = divmod(value, 128)
        found += bytes([digit | (128 if value else 0)])
        if not value:
            return found


def packet(message: Publish, *, mqtt5: bool = True, flags: int = 0, properties: bytes = b"", qos: int = -1) -> bytes:
    level = (1 if message.packet_id else 0) if qos < 0 else qos
    name = message.topic.encode()
    table = length(len(properties)) + properties if mqtt5 else b""
    body = len(name).to_bytes(2, "big") + name + message.packet_id + table + message.payload
    return bytes([0x30 | level << 1 | flags]) + length(len(body)) + body


def cutter(*, mqtt5: bool = True, max_packet_bytes: int = 1 << 20) -> PublishCutter:
    return PublishCutter(mqtt5=mqtt5, max_packet_bytes=max_packet_bytes)


MESSAGES = st.builds(
    Publish,
    topic=st.text(min_size=1, max_size=80),
    payload=st.one_of(st.binary(max_size=40), st.integers(100, 20_000).map(bytes)),
    packet_id=st.one_of(st.just(b""), st.integers(1, 65535).map(lambda number: number.to_bytes(2, "big"))),
)


@given(st.data(), st.booleans())
def test_any_pieces_and_any_room_give_the_same_messages_in_order(data: st.DataObject, mqtt5: bool) -> None:
    messages: list[Publish] = []
    others: list[bytes] = []
    stream = b""
    for item in data.draw(st.lists(st.one_of(MESSAGES, st.sampled_from([PINGRESP, SUBACK])), max_size=12)):
        if isinstance(item, bytes):
            others.append(item)
            stream += item
        else:
            flags = data.draw(st.sampled_from([0, 1, 8, 9])) if item.packet_id else data.draw(st.sampled_from([0, 1]))
            properties = data.draw(st.sampled_from([b"", b"\x01\x01", b"\x26\x00\x01a\x00\x01b" * 30]))
            messages.append(item)
            stream += packet(item, mqtt5=mqtt5, flags=flags, properties=properties)
    cutting = cutter(mqtt5=mqtt5)
    found: list[Publish] = []
    rest: list[bytes] = []
    while stream or cutting.stopped:
        size = data.draw(st.integers(1, max(1, len(stream)))) if not cutting.stopped else 0
        room = data.draw(st.integers(0 if size else 1, 4))
        taken, passed = cutting.cut(stream[:size], room)
        assert len(taken) <= room
        found += taken
        rest += passed
        stream = stream[size:]
    assert found == messages
    assert rest == others
    assert not cutting.given_up


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=10), st.booleans())
def test_no_bytes_raise_and_none_are_lost_once_it_gives_up(pieces: list[bytes], mqtt5: bool) -> None:
    cutting = cutter(mqtt5=mqtt5, max_packet_bytes=200)
    passed: list[bytes] = []
    for index, piece in enumerate(pieces):
        passed += cutting.cut(piece, 100)[1]
        if cutting.given_up:
            assert b"".join(pieces[: index + 1]).endswith(passed[-1])
            assert cutting.cut(b"more", 100) == ([], [b"more"])
            return


GOOD = Publish("t/a", b"x", b"\x00\x01")


@pytest.mark.parametrize(
    ("name", "unusual"),
    [
        ("QoS 2", packet(GOOD, qos=2)),
        ("QoS 3", packet(GOOD, qos=3)),
        ("above the limit", packet(GOOD._replace(payload=bytes(1000)))),
        ("above the limit, its head alone", packet(GOOD._replace(payload=bytes(1000)))[:3]),
        ("no topic: an alias", packet(GOOD._replace(topic=""))),
        ("topic that is no UTF-8", packet(GOOD).replace(b"t/a", b"t/\xff")),
        ("identifier 0", packet(GOOD._replace(packet_id=b"\0\0"))),
        ("topic beyond the packet", b"\x32\x06\x00\x09t/a\x00"),
        ("no body", b"\x32\x00"),
        ("no room for properties", b"\x32\x07\x00\x03t/a\x00\x01"),
        ("properties beyond the packet", b"\x32\x08\x00\x03t/a\x00\x01\x05"),
        ("length of five bytes", b"\x32\xff\xff\xff\xff\x01"),
    ],
)
def test_after_anything_unusual_the_engine_gets_everything(name: str, unusual: bytes) -> None:
    cutting = cutter(max_packet_bytes=500)
    messages, others = cutting.cut(packet(GOOD) + PINGRESP + unusual + packet(GOOD), 10)
    assert messages == [GOOD], name
    assert others == [PINGRESP, unusual + packet(GOOD)]
    assert cutting.given_up
    assert cutting.cut(packet(GOOD), 10) == ([], [packet(GOOD)])


def test_a_large_packet_is_put_together_once() -> None:
    large = GOOD._replace(payload=bytes(3_000_000))
    stream = packet(large) + packet(GOOD)
    cutting = cutter(max_packet_bytes=4_000_000)
    found: list[Publish] = []
    for start in range(0, len(stream), 50_000):
        found += cutting.cut(stream[start : start + 50_000], 10)[0]
    assert found == [large, GOOD]


def test_acknowledgements_are_success_without_a_reason() -> None:
    assert puback([b"\x00\x01", b"\xab\xcd"]) == b"\x40\x02\x00\x01\x40\x02\xab\xcd"
