"""1,000 good units of four pymodbus servers, 20 that are not there behind the same servers, and 80 hostile servers.

Nobody disturbs the others: every good unit is read again and again, no frame of a hostile one is stored, and of each
the adapter says what is wrong.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from support.crowd import bounded_memory
from support.modbus_server import ModbusServer

from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_sdk.testkit import RecordingSink, running, until

ENDPOINTS, MISSING = 4, 5
READINGS = 2
"""Of each good unit at least."""

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def answer_of(request: bytes, registers: int = 2) -> bytes:
    """What a good server would answer."""
    body = bytes([request[6], request[7], 2 * registers]) + bytes(2 * registers)
    return request[:4] + len(body).to_bytes(2, "big") + body


async def hang(request: bytes, writer: asyncio.StreamWriter) -> None:
    """No answer."""


async def hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def truncate(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer_of(request)[:-3])


async def truncate_and_hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer_of(request)[:-3])
    writer.close()


async def garbage(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


async def flood(request: bytes, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        for _ in range(200):
            writer.write(bytes(range(256)) * 256)
            await writer.drain()


async def other_unit(request: bytes, writer: asyncio.StreamWriter) -> None:
    right = answer_of(request)
    writer.write(right[:6] + bytes([right[6] ^ 1]) + right[7:])


async def other_transaction(request: bytes, writer: asyncio.StreamWriter) -> None:
    right = answer_of(request)
    writer.write(bytes([right[0] ^ 1]) + right[1:])


async def other_function(request: bytes, writer: asyncio.StreamWriter) -> None:
    right = answer_of(request)
    writer.write(right[:7] + b"\x04" + right[8:])


async def too_long(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer_of(request, 60))


async def endless_length(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(request[:4] + b"\xff\xff" + bytes(2000))


async def refuse(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(request[:4] + b"\x00\x03" + bytes([request[6], request[7] | 0x80, 2]))


KINDS: tuple[Answer, ...] = (
    hang, hang_up, truncate, truncate_and_hang_up, garbage, flood, other_unit, other_transaction, other_function,
    too_long, endless_length, refuse,
)  # fmt: skip


@asynccontextmanager
async def hostile_servers(count: int) -> AsyncIterator[Mapping[str, Answer]]:
    """Endpoint → what it does with each request."""
    writers: set[asyncio.StreamWriter] = set()
    servers: list[asyncio.Server] = []

    def serving(answer: Answer) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            try:
                while True:
                    await answer(await reader.readexactly(12), writer)
            except (asyncio.IncompleteReadError, OSError):
                pass
            finally:
                writers.discard(writer)
                writer.close()

        return serve

    found: dict[str, Answer] = {}
    try:
        for number in range(count):
            answer = KINDS[number % len(KINDS)]
            server = await asyncio.start_server(serving(answer), "127.0.0.1", 0)
            servers.append(server)
            found[f"127.0.0.1:{server.sockets[0].getsockname()[1]}"] = answer
        yield found
    finally:
        for server in servers:
            server.close()
        for writer in list(writers):
            writer.transport.abort()


def device(endpoint: str, unit: int) -> dict[str, Any]:
    register = {"address": 100, "type": "s32", "unit": "W"}
    return {"endpoint": endpoint, "unit": unit, "registers": {"power_w": register}}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("each_has", "servers"), [(50, 24), pytest.param(250, 80, marks=pytest.mark.soak)])
async def test_the_good_ones_are_not_disturbed(each_has: int, servers: int) -> None:
    units = {unit: [(100, [0, unit])] for unit in range(1, each_has + 1)}
    async with ModbusServer(units, more_ports=ENDPOINTS - 1) as server, hostile_servers(servers) as hostile:
        endpoints = [f"127.0.0.1:{port}" for port in (server.port, *server.more_ports)]
        good = {f"{endpoint}/{unit}": unit for endpoint in endpoints for unit in units}
        missing = [
            f"{endpoint}/{unit}" for endpoint in endpoints for unit in range(each_has + 1, each_has + 1 + MISSING)
        ]
        credentials = [*good, *missing, *(f"{endpoint}/1" for endpoint in hostile)]
        devices = {f"d{n}": device(*_split(each)) for n, each in enumerate(credentials)}
        section = {"interval_s": 3.0, "timeout_s": 3.0, "backoff_max_s": 5.0, "devices": devices}
        adapter, sink = ModbusAdapter(ModbusConfig.from_section("plant", section)), RecordingSink()

        def read() -> Counter[str]:
            return Counter(each.frame.credential for each in sink.stored)

        def all_read() -> bool:
            counted = read()
            return all(counted[name] >= READINGS for name in good)

        bad = [*missing, *(f"{endpoint}/1" for endpoint in hostile)]
        told: dict[str, str] = {}

        def all_told() -> bool:
            """A word is taken back when the next try begins, so it is kept here."""
            told.update((each, word) for each in bad if (word := adapter.trouble(each)))
            return len(told) == len(bad)

        with bounded_memory():
            async with running(adapter, sink):
                await until(all_read, 300, "all readings")
                await until(all_told, 120, "a word on each hostile one")
    assert sink.faults == []
    assert read().keys() == good.keys(), "a frame of a hostile one was stored"
    wrong = [
        s.frame.credential for s in sink.stored if s.measurements[0].registers["power_w"] != good[s.frame.credential]
    ]
    assert not wrong, f"{len(wrong)} readings are another unit's"
    letters = {frame.credential: reason for frame, reason in sink.dead}
    refusing = [f"{endpoint}/1" for endpoint, answer in hostile.items() if answer is refuse]
    assert letters == dict.fromkeys([*missing, *refusing], "modbus_exception")
    for endpoint, answer in hostile.items():
        if answer is not refuse:
            assert endpoint in told[f"{endpoint}/1"], f"{answer.__name__}: {told[f'{endpoint}/1']!r} names no endpoint"


def _split(credential: str) -> tuple[str, int]:
    endpoint, _, unit = credential.rpartition("/")
    return endpoint, int(unit)
