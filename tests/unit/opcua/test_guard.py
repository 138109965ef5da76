"""What stands before the library's protocol: whole chunks only, of a bounded size, in messages of a bounded size."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_adapters.opcua.guard import MAX_CHUNK_BYTES, Guard

LIMIT = 1000


class Inner(asyncio.Protocol):
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def guarded(limit: int = LIMIT) -> tuple[Guard, Inner, list[str]]:
    inner, reasons = Inner(), []
    return Guard(inner, limit, reasons.append), inner, reasons


def chunk(size: int, final: bytes = b"F", kind: bytes = b"MSG") -> bytes:
    return struct.pack("<3scI", kind, final, size) + bytes(size - 8)


def whole(data: bytes) -> bool:
    at = 0
    while at < len(data):
        at += struct.unpack_from("<I", data, at + 4)[0]
    return at == len(data)


@given(st.lists(st.integers(8, 300), max_size=20), st.lists(st.integers(0, 2000), max_size=20))
def test_however_it_is_cut_whole_chunks_come_out(sizes: list[int], cuts: list[int]) -> None:
    guard, inner, reasons = guarded()
    stream = b"".join([chunk(size) for size in sizes])
    edges = sorted({0, len(stream), *[cut for cut in cuts if cut < len(stream)]})
    for start, end in itertools.pairwise(edges):
        guard.data_received(stream[start:end])
    assert b"".join(inner.parts) == stream and all(whole(part) for part in inner.parts) and reasons == []


@pytest.mark.parametrize("size", [0, 7, MAX_CHUNK_BYTES + 1, 2**31, 2**32 - 1])
def test_a_chunk_that_lies_about_its_size(size: int) -> None:
    guard, inner, reasons = guarded()
    guard.data_received(chunk(50) + struct.pack("<3scI", b"MSG", b"F", size))
    assert len(reasons) == 1 and f"a chunk of {size} bytes" in reasons[0]
    guard.data_received(chunk(50))
    assert inner.parts == [], "nothing of what came with it"


def test_a_message_without_an_end() -> None:
    guard, inner, reasons = guarded()
    for _ in range(9):
        guard.data_received(chunk(100, b"C"))
    guard.data_received(chunk(100))  # the end, at the limit
    assert len(b"".join(inner.parts)) == LIMIT and reasons == []
    for _ in range(11):
        guard.data_received(chunk(100, b"C"))
    assert reasons == [f"a message of more than {LIMIT} bytes"] and len(b"".join(inner.parts)) == 2 * LIMIT


def test_a_chunk_in_small_pieces_costs_little() -> None:
    guard, inner, _ = guarded(2**30)
    data, began = chunk(MAX_CHUNK_BYTES), time.process_time()
    for at in range(0, len(data), 64):
        guard.data_received(data[at : at + 64])
    assert inner.parts == [data]
    assert time.process_time() - began < 5, "the time is not of the square of the size"


def test_the_end_is_passed_on() -> None:
    guard, inner, _ = guarded()
    guard.data_received(chunk(50)[:20])
    guard.connection_lost(None)
    assert inner.lost and inner.parts == []
