"""The fast decoder says what the library's own says, and no bytes make it do anything but refuse."""

from __future__ import annotations

import os
import random
import struct
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_adapters.opcua import wire
from flexrelay_adapters.opcua._stack import stock_items, stock_publish
from flexrelay_sdk.testkit.codecs import mutated

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.integers(1, 4_000_000_000_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms))
_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    "SByte": st.integers(-128, 127),
    "Byte": st.integers(0, 255),
    "Int16": st.integers(-(2**15), 2**15 - 1),
    "UInt16": st.integers(0, 2**16 - 1),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "UInt32": st.integers(0, 2**32 - 1),
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "UInt64": st.integers(0, 2**64 - 1),
    "Float": st.floats(width=32, allow_nan=False),
    "Double": st.floats(allow_nan=False),
    "String": st.one_of(st.none(), st.text(max_size=20)),
    "ByteString": st.binary(max_size=20),
    "DateTime": instants,
    "Guid": st.uuids(),
    "NodeId": st.builds(ua.NodeId, st.one_of(st.integers(0, 2**32 - 1), st.text(min_size=1)), st.integers(0, 9)),
    "QualifiedName": st.builds(ua.QualifiedName, st.text(max_size=9), st.integers(0, 9)),
    "LocalizedText": st.builds(ua.LocalizedText, st.text(max_size=9), st.text(max_size=3)),
    "StatusCode": st.integers(0, 2**32 - 1).map(ua.StatusCode),
}


@st.composite
def variants(draw: Any) -> ua.Variant:
    kind = draw(st.sampled_from(sorted(_KINDS)))
    value = _KINDS[kind]
    if draw(st.integers(0, 3)) == 0:
        return ua.Variant(draw(st.lists(value, max_size=4)), ua.VariantType[kind], is_array=True)
    return ua.Variant(draw(value), ua.VariantType[kind])


@st.composite
def items(draw: Any) -> ua.MonitoredItemNotification:
    value = ua.DataValue(
        draw(st.one_of(st.just(ua.Variant()), variants())),
        StatusCode=draw(st.one_of(st.none(), st.sampled_from([0, 0x4000_0000, 0x8032_0000]).map(ua.StatusCode))),
        SourceTimestamp=draw(st.one_of(st.none(), instants)),
        ServerTimestamp=draw(st.one_of(st.none(), instants)),
    )  # no picoseconds: the library puts them in another order than Part 6 table 26 and node-opcua
    return ua.MonitoredItemNotification(ClientHandle=draw(st.integers(0, 2**32 - 1)), Value=value)


def response(found: list[ua.MonitoredItemNotification], sequence: int = 7) -> bytes:
    """A publish response as a server encodes it."""
    message = ua.PublishResponse()
    message.Parameters.SubscriptionId = 11
    message.Parameters.AvailableSequenceNumbers = [sequence]
    message.Parameters.MoreNotifications = False
    message.Parameters.NotificationMessage.SequenceNumber = sequence
    message.Parameters.NotificationMessage.NotificationData = [ua.DataChangeNotification(MonitoredItems=found)]
    return struct_to_binary(message)


def fast(changes: wire.Changes) -> list[wire.Item]:
    found = wire.scan(changes, wire.BY_SOURCE)
    decoded = []
    for handle, start, end, stamp in found:
        item, after = wire.item_at(changes.body, start, changes.end)
        assert (item.handle, after) == (handle, end)
        assert stamp in (item.source_time, item.server_time)
        decoded.append(item)
    return decoded


def plain(item: wire.Item) -> tuple[Any, ...]:
    # the library's times are datetimes of a microsecond
    return (item.handle, item.value, item.status, item.source_time // 10, item.server_time // 10)


@settings(max_examples=int(os.environ.get("FLEXRELAY_EXAMPLES", "300")), deadline=None)
@given(st.lists(items(), max_size=6), st.integers(1, 2**32 - 1))
def test_decodes_what_the_library_decodes(found: list[ua.MonitoredItemNotification], sequence: int) -> None:
    body = response(found, sequence)
    ours, theirs = wire.parse_publish(body), stock_publish(body)
    assert (ours.subscription, ours.sequence, ours.more, ours.status) == (11, sequence, False, None)
    assert ours[:3] == theirs[:3] and ours.available == theirs.available
    assert [change.items for change in ours.changes] == [len(found)]
    (changes,), (again,) = ours.changes, theirs.changes
    assert stock_items(again) == stock_items(changes)
    assert [plain(item) for item in fast(changes)] == [plain(item) for item in stock_items(changes)]


def test_picoseconds_stand_where_the_standard_says() -> None:
    """As node-opcua 2.186 sent it: a Double, the source time, its picoseconds, the server time."""
    value = bytes.fromhex("1d0b000000000000004030 91a586d779dd01 0000 3091a586d779dd01".replace(" ", ""))
    body = struct.pack("<I", 5) + value
    item, end = wire.item_at(body, 0, len(body))
    assert (item.handle, item.value, item.status, end) == (5, 2.0, 0, len(body))
    assert item.source_time == item.server_time == int.from_bytes(bytes.fromhex("3091a586d779dd01"), "little")


def test_a_status_change_and_a_keep_alive() -> None:
    message = ua.PublishResponse()
    message.Parameters.SubscriptionId = 3
    assert wire.parse_publish(struct_to_binary(message)).keep_alive
    ended = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
    message.Parameters.NotificationMessage.NotificationData = [ended]
    found = wire.parse_publish(struct_to_binary(message))
    assert found.status == ua.StatusCodes.BadTimeout and not found.keep_alive


def test_a_header_with_diagnostics_is_stepped_over() -> None:
    value = ua.DataValue(ua.Variant(1.5), SourceTimestamp=EPOCH)
    body = response([ua.MonitoredItemNotification(ClientHandle=1, Value=value)])
    texts = struct.pack("<i", 2) + struct.pack("<i", 3) + b"abc" + struct.pack("<i", -1)
    odd = body[:20] + b"\x13" + struct.pack("<ii", 1, 2) + struct.pack("<i", 2) + b"hi" + texts + body[25:]
    assert wire.parse_publish(odd).sequence == wire.parse_publish(body).sequence


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x01\x18" + b"\x18" * 5000,  # a Variant in a Variant in a Variant …
        b"\x01\x80" + struct.pack("<i", 2**31 - 1),  # two thousand million nothings
        b"\x01\x8b" + struct.pack("<i", 2**31 - 1),
        b"\x01\x19" + b"\x40" * 5000,  # diagnostics in diagnostics …
        b"\x01\x0c" + struct.pack("<i", 2**31 - 1),
        b"\x01\x16\x3f",
        b"\x40",
        b"\x01\x1f",
    ],
)
def test_hostile_values_are_refused_at_once(hostile: bytes) -> None:
    body = struct.pack("<I", 1) + hostile
    began = time.process_time()
    with pytest.raises(wire.Malformed):
        wire.item_at(body, 0, len(body))
    with pytest.raises(wire.Malformed):
        wire.scan(wire.Changes(body, 0, len(body), 1), wire.BY_SOURCE)
    assert time.process_time() - began < 1


def fuzz(count: int, seed: int) -> tuple[int, int]:
    """Mutated responses: how many were read, how many refused. Raises AssertionError for anything else."""
    chance = random.Random(seed)
    bodies = []
    for kinds in (["Double"] * 3, ["String", "Int32"], ["Float", "Boolean", "UInt64"]):
        found = [
            ua.MonitoredItemNotification(
                ClientHandle=number,
                Value=ua.DataValue(
                    ua.Variant("x" if kind == "String" else kind == "Boolean" or 5, ua.VariantType[kind]),
                    StatusCode=None if number else ua.StatusCode(0x4000_0000),
                    SourceTimestamp=EPOCH,
                ),
            )
            for number, kind in enumerate(kinds)
        ]
        bodies.append(response(found))
    read = refused = 0
    for number in range(count):
        body = mutated(bodies[number % len(bodies)], chance)
        try:
            for changes in wire.parse_publish(body).changes:
                fast(changes)
            read += 1
        except wire.Malformed:
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {number}: {error!r} of {body.hex()}") from error
    return read, refused


def _seed() -> int:
    return int(os.environ.get("FLEXRELAY_FUZZ_SEED") or time.time_ns() % 2**32)


def test_mutated_responses() -> None:
    seed = _seed()
    read, refused = fuzz(5_000, seed)
    print(f"5,000 inputs, seed {seed}: {read} read, {refused} refused")
    assert read and refused


@pytest.mark.soak
def test_a_million_mutated_responses() -> None:
    seed = _seed()
    read, refused = fuzz(1_000_000, seed)
    print(f"1,000,000 inputs, seed {seed}: {read:,} read, {refused:,} refused")
    assert read and refused
