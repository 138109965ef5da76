"""Mutated datagrams and payloads: every decoder refuses or reads, and the server takes whatever comes.

Short here; a million inputs each in `make soak`. The seed is printed; FLEXRELAY_FUZZ_SEED repeats it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cbor2
import pytest

from flexrelay_adapters.lwm2m import Lwm2mAdapter, Lwm2mConfig
from flexrelay_adapters.lwm2m.coap.blockwise import Block
from flexrelay_adapters.lwm2m.coap.codes import LWM2M_CBOR, SENML_CBOR, SENML_JSON, TLV
from flexrelay_adapters.lwm2m.coap.message import MessageError, parse, path_options, serialise, uint
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.dtls.records import is_client_hello, split
from flexrelay_adapters.lwm2m.formats import FormatError, Record, decode, encode
from flexrelay_adapters.lwm2m.links import parse_links
from flexrelay_adapters.lwm2m.registration import BadRegistration, Parameters
from flexrelay_sdk.testkit import RecordingSink, running
from flexrelay_sdk.testkit.codecs import mutated

SOAK = bool(os.environ.get("FLEXRELAY_SOAK"))
COUNT, SOAK_COUNT = 8_000, 1_000_000
RECORDS = [Record((3305, 0, 5800), 1234.5), Record((3305, 0, 5805), 7), Record((3305, 0, 5750, 1), "text")]
SENML = cbor2.dumps([{-2: "/3305/0/", -3: 1_700_000_000, 0: "5800", 2: 1.5}, {0: "5805", 2: 7, 6: -3}])


def run(name: str, seeds: Sequence[bytes], feed: Callable[[bytes], object], allowed: type[Exception]) -> None:
    seed = int(os.environ.get("FLEXRELAY_FUZZ_SEED") or time.time_ns() % 2**32)
    count = SOAK_COUNT if SOAK else COUNT
    chance = random.Random(seed)
    taken = 0
    for number in range(count):
        data = mutated(seeds[number % len(seeds)], chance)
        try:
            feed(data)
            taken += 1
        except allowed:
            pass
        except Exception as error:
            raise AssertionError(f"{name}: seed {seed}, input {number}: {error!r} of {data[:300]!r}") from error
    print(f"{name}: {count:,} inputs, seed {seed}, {taken:,} taken")


MESSAGES = [
    serialise(
        0, 2, 7, b"r", [*path_options("/rd"), (15, b"ep=meter"), (15, b"lt=300"), uint(12, 40)], b"</1/0>,</3305/0>"
    ),
    serialise(0, 2, 8, b"d", [*path_options("/dp"), uint(12, SENML_CBOR)], SENML),
    serialise(0, 2, 9, b"d", [*path_options("/dp"), uint(12, SENML_CBOR), uint(27, 0x0E)], bytes(1024)),
    serialise(0, 0x45, 10, b"12345678", [uint(6, 9), uint(12, SENML_CBOR)], SENML),
    serialise(2, 0x45, 11, b"12345678", [], b""),
    serialise(0, 2, 12, b"u", path_options("/rd/abc")),
    serialise(0, 4, 13, b"u", path_options("/rd/abc")),
    serialise(0, 2, 14, b"b", [*path_options("/bs"), (15, b"ep=x")]),
]


def test_messages() -> None:
    run("messages", MESSAGES, parse, MessageError)


@pytest.mark.parametrize("content_format", [SENML_CBOR, SENML_JSON, TLV, LWM2M_CBOR])
def test_formats(content_format: int) -> None:
    seeds = [encode(content_format, RECORDS, (3305, 0))]
    if content_format == SENML_CBOR:
        seeds.append(SENML)
    run(f"format {content_format}", seeds, lambda data: decode(content_format, data, (3305, 0), 1.7e9), FormatError)


def test_object_lists() -> None:
    run(
        "links",
        [b'</>;rt="oma.lwm2m";ct=110,</1/0>;ver=1.1,</3305/0>', b"</lw>;rt=oma.lwm2m,</lw/1/0>"],
        parse_links,
        FormatError,
    )


def test_registration_parameters() -> None:
    def feed(data: bytes) -> None:
        Parameters.of(data.decode(errors="replace").split("&"))

    run("parameters", [b"ep=meter&lt=300&lwm2m=1.1&b=UQ&Q", b"lt=99999999999"], feed, BadRegistration)


def test_blocks_and_records() -> None:
    run("blocks", [b"\x0e", b"\x01\x0f"], Block.of, ValueError)
    hello = bytes.fromhex("16feff0000000000000000003d01000031000000000000003100") + bytes(50)
    run("records", [hello], lambda data: (is_client_hello(data), list(split(data))), MessageError)


async def test_the_server_takes_whatever_comes(tmp_path: Path) -> None:
    """Not one unhandled error, and bounded memory."""
    section: dict[str, Any] = {"coap": {"port": 0}, "state": tmp_path / "state.db", "rate": 1e9, "burst": 1e9}
    section |= {"reply_cache": 1_000, "reply_cache_bytes": 2**18, "max_pending": 1_000, "max_pending_bytes": 2**18}
    adapter = Lwm2mAdapter(Lwm2mConfig.from_section("fuzzed", section))
    sink = RecordingSink()
    answers = 0

    def answered(data: bytes) -> None:
        nonlocal answers
        answers += 1
        parse(data)

    peers = [Peer((f"127.0.0.{n}", 1), f"udp:127.0.0.{n}", False, answered) for n in range(1, 20)]
    seed = int(os.environ.get("FLEXRELAY_FUZZ_SEED") or time.time_ns() % 2**32)
    chance = random.Random(seed)
    count = SOAK_COUNT if SOAK else COUNT
    async with running(adapter, sink):
        tracemalloc.start()
        try:
            for number in range(count):
                data = mutated(MESSAGES[number % len(MESSAGES)], chance)
                if chance.random() < 0.7 and len(data) > 4:
                    data = data[:2] + chance.randbytes(2) + data[4:]  # a new message id: no duplicate
                adapter.layer.receive(peers[number % len(peers)], data)
                if number % 200 == 0:
                    await asyncio.sleep(0)
                    sink.stored.clear()
                    sink.dead.clear()
            await asyncio.sleep(0.1)
            _, greatest = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sink.faults == [] and adapter.connected
        assert greatest < 24 * 2**20, f"seed {seed}: grew by {greatest:,} bytes"
    print(f"server: {count:,} inputs, seed {seed}, {answers:,} answers, {dict(adapter.layer.counts)}")


soak = pytest.mark.soak


@soak
@pytest.mark.timeout(3600)
def test_a_million_messages() -> None:
    test_messages()


@soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("content_format", [SENML_CBOR, SENML_JSON, TLV, LWM2M_CBOR])
def test_a_million_of_each_format(content_format: int) -> None:
    test_formats(content_format)


@soak
@pytest.mark.timeout(3600)
def test_a_million_object_lists_and_parameters() -> None:
    test_object_lists()
    test_registration_parameters()
    test_blocks_and_records()


@soak
@pytest.mark.timeout(3600)
async def test_a_million_datagrams_at_the_server(tmp_path: Path) -> None:
    await test_the_server_takes_whatever_comes(tmp_path)
