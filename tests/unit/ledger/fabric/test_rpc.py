"""The light client against gRPC's own server, and against servers that misbehave."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from hpack import Encoder

from flexrelay.ledger.fabric.http2 import SILENT, CallFailed, Connection
from flexrelay.ledger.fabric.pings import Pings
from flexrelay.ledger.fabric.rpc import Caller

PATH = "/test.Service/Method"
Answer = Callable[[bytes, Any], Awaitable[bytes]]
LIMIT = 20_000_000


@asynccontextmanager
async def serving(
    answer: Answer, port: int = 0, *options: tuple[str, int]
) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    sizes = (("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT))
    server = grpc.aio.server(options=[*sizes, *options])
    handlers = {"Method": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, bound
    finally:
        await server.stop(None)


@asynccontextmanager
async def calling(port: int, limit: int = LIMIT) -> AsyncIterator[Caller]:
    caller = Caller(f"127.0.0.1:{port}", "", None, limit)
    try:
        yield caller
    finally:
        caller.close()


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def failed(call: Awaitable[bytes]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_answers_come_to_their_calls_small_and_large() -> None:
    async with serving(echo) as (_, port), calling(port) as caller:
        sizes = [0, 1, 16_383, 16_384, 65_535, 65_536, 3_000_000, 10_000_000] + [200] * 300
        requests = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
        assert await asyncio.gather(*(caller.call(PATH, request, 60.0) for request in requests)) == requests


async def test_a_failure_carries_code_text_and_details() -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", request),))
        return await context.abort(grpc.StatusCode.ABORTED, "nein – 100 %")  # type: ignore[no-any-return]

    async with serving(fail) as (_, port), calling(port) as caller:
        for details in (b"\0\xff" * 50, b"x" * 20_000, b"y"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.call(PATH, details, 10.0)
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "nein – 100 %")
            assert ("grpc-status-details-bin", details) in list(caught.value.trailing_metadata())
        assert (await failed(caller.call("/test.Service/Other", b"", 10.0)))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_deadlines_and_cancellation_reach_the_server_and_disturb_nobody() -> None:
    ended = []

    async def slow(request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(30 if request == b"slow" else 0)
        except asyncio.CancelledError:
            ended.append(request)
            raise
        return request

    async with serving(slow) as (_, port), calling(port) as caller:
        assert await failed(caller.call(PATH, b"slow", 0.2)) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "no answer within 0.2 s",
        )
        task = asyncio.create_task(caller.call(PATH, b"slow", 30.0))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await caller.call(PATH, b"quick", 10.0) == b"quick"
        async with asyncio.timeout(60):
            while len(ended) < 2:  # noqa: ASYNC110 (the server's tasks end)
                await asyncio.sleep(0.01)


async def test_a_server_that_comes_back_is_called_again() -> None:
    async with serving(echo) as (_, port), calling(port) as caller:
        assert await caller.call(PATH, b"1", 10.0) == b"1"
    async with calling(port) as caller:
        code, text = await failed(caller.call(PATH, b"2", 10.0))
        assert code is grpc.StatusCode.UNAVAILABLE and text.startswith("failed to connect to all addresses")
        began = time.monotonic()
        for _ in range(50):
            await failed(caller.call(PATH, b"2", 10.0))  # it is not dialled each time
        assert time.monotonic() - began < 60.0
        async with serving(echo, port):
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await caller.call(PATH, b"3", 10.0) == b"3"
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)


async def test_calls_that_run_when_the_server_dies_are_unavailable() -> None:
    async def hang(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(30)
        return request

    async with serving(hang) as (server, port), calling(port) as caller:
        calls = [asyncio.create_task(failed(caller.call(PATH, b"x", 20.0))) for _ in range(5)]
        await asyncio.sleep(0.2)
        await server.stop(None)
        codes = {code for code, _ in await asyncio.gather(*calls)}
        assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_connections_that_the_server_renews_fail_no_call() -> None:
    async with (
        serving(echo, 0, ("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 5_000)) as (_, port),
        calling(port) as caller,
    ):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            answers = await asyncio.gather(*(caller.call(PATH, b"%d" % number, 10.0) for number in range(20)))
            assert answers == [b"%d" % number for number in range(20)]


async def test_more_calls_than_the_server_allows_wait() -> None:
    async with (
        serving(echo, 0, ("grpc.max_concurrent_streams", 3)) as (_, port),
        calling(port) as caller,
    ):
        found = await asyncio.gather(*(caller.call(PATH, b"%d" % number, 20.0) for number in range(100)))
        assert found == [b"%d" % number for number in range(100)]


async def test_calls_that_wait_for_room_go_on_over_the_next_connection() -> None:
    """As when the TLS files were replaced."""
    running, end = asyncio.Event(), asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        running.set()
        await end.wait()
        return request

    async with serving(slow, 0, ("grpc.max_concurrent_streams", 1)) as (_, port), calling(port) as caller:
        first = asyncio.create_task(caller.call(PATH, b"1", 60.0))
        await running.wait()
        waiting = [asyncio.create_task(caller.call(PATH, b"%d" % number, 60.0)) for number in range(5)]
        await asyncio.sleep(0.1)
        caller.retire()
        end.set()
        assert await asyncio.gather(first, *waiting) == [b"1", *(b"%d" % number for number in range(5))]


async def test_an_answer_that_is_too_large_fails_its_call_only() -> None:
    async with serving(echo) as (_, port), calling(port, limit=1_000) as caller:
        code, text = await failed(caller.call(PATH, b"x" * 50_000, 10.0))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text
        assert await caller.call(PATH, b"y", 10.0) == b"y"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        b"\0\0\0\x04\0\0\0\0\0" + b"\xff\xff\xff\0\0\0\0\0\x01",
        b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x01\x01\x05\0\0\0\x01\xff",
        b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02",
        b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x02\0\x08\0\0\0\x01\x09x",
    ],
)
async def test_a_server_that_speaks_something_else_is_unavailable(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, calling(server.sockets[0].getsockname()[1]) as caller:
        code, _ = await failed(caller.call(PATH, b"x", 60.0))
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_accepts_and_is_silent_meets_the_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, calling(server.sockets[0].getsockname()[1]) as caller:
        code, _ = await failed(caller.call(PATH, b"x", 0.3))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED


class Wire(asyncio.Transport):
    """Takes what is written, and can be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


async def test_whatever_frames_come_a_call_ends() -> None:
    dice = random.Random(11)
    good = [
        frame(1, 4, 1, b"\x88"),
        frame(0, 0, 1, b"\0\0\0\0\x02ok"),
        frame(1, 5, 1, b"\x10\x0bgrpc-status\x010"),
    ]
    outcomes = Counter[str]()
    for _ in range(2_000):
        connection = Connection("peer", False, 1_000, lambda _: None)
        wire = Wire()
        connection.connection_made(wire)
        connection.data_received(frame(4, 0, 0, b""))
        call = asyncio.create_task(connection.unary("/a/b", b"x" * dice.choice([1, 100_000])))
        await asyncio.sleep(0)
        said = list(good)
        for _ in range(dice.randint(0, 2)):
            payload = dice.randbytes(dice.randint(0, 12))
            strange = frame(dice.randint(0, 10), dice.randint(0, 255), dice.choice([0, 1, 1, 3]), payload)
            said.insert(dice.randint(0, 3), strange)
        data = b"".join(said)
        cut = dice.randint(0, len(data))
        for piece in (data[:cut], data[cut:]):
            if not wire.closed:
                connection.data_received(piece)
        connection.connection_lost(None)
        try:
            answer = await asyncio.wait_for(call, 60)
            outcomes["answer" if answer == b"ok" else "other"] += 1
        except CallFailed as failure:
            outcomes[failure.code.name] += 1
        assert not connection.busy
    assert outcomes["answer"] > 500 and outcomes["UNAVAILABLE"] > 50


async def test_a_request_is_sent_as_the_window_has_room() -> None:
    connection = Connection("peer", False, 1_000, lambda _: None)
    wire = Wire()
    connection.connection_made(wire)
    connection.data_received(frame(4, 0, 0, b"\0\x04\0\0\x03\xe8"))  # a window of 1000 bytes
    call = asyncio.create_task(connection.unary("/a/b", b"v" * 70_000))

    async def sent() -> int:
        await asyncio.sleep(0.01)
        found, rest = 0, wire.written[24:]
        while rest:
            size = int.from_bytes(rest[:3], "big")
            found += size if rest[3] == 0 else 0
            rest = rest[9 + size :]
        return found

    assert await sent() == 1_000
    connection.data_received(frame(8, 0, 1, (500).to_bytes(4, "big")))
    assert await sent() == 1_500
    connection.data_received(frame(8, 0, 1, (100_000).to_bytes(4, "big")))
    assert await sent() == 65_535  # what the connection has room for
    connection.data_received(frame(8, 0, 0, (100_000).to_bytes(4, "big")))
    assert await sent() == 70_005
    call.cancel()


QUICK = Pings(waiting_s=(0.5, 1.0), idle_s=1.5, answer_s=1.0)
PATIENT = replace(QUICK, answer_s=30.0)


class Talker:
    """Says hello to whoever connects, and answers frames as it is told."""

    def __init__(self, *, pongs: bool) -> None:
        self.pongs = pongs
        self.pings = 0
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(4, 0, 0, b""))
        await reader.readexactly(24)
        try:
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == 6:
                    self.pings += 1
                    if self.pongs:
                        writer.write(frame(6, 1, 0, payload))
        except (asyncio.IncompleteReadError, OSError):
            self.ended.set()
        finally:
            writer.close()


@asynccontextmanager
async def talking(*, pongs: bool) -> AsyncIterator[tuple[Talker, Caller]]:
    talker = Talker(pongs=pongs)
    server = await asyncio.start_server(talker.serve, "127.0.0.1", 0)
    caller = Caller(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "", None, LIMIT, PATIENT if pongs else QUICK)
    async with server:
        try:
            yield talker, caller
        finally:
            caller.close()


async def test_a_server_that_answers_no_ping_is_given_up_long_before_the_deadline() -> None:
    async with talking(pongs=False) as (talker, caller):
        codes = await asyncio.gather(*(failed(caller.call(PATH, b"x", 300.0)) for _ in range(3)))
        assert {code for code, _ in codes} == {grpc.StatusCode.UNAVAILABLE}
        assert all(text.startswith(SILENT) for _, text in codes)
        assert talker.pings == 1
        await asyncio.wait_for(talker.ended.wait(), 60)


async def test_a_slow_call_at_a_server_that_answers_pings_is_not_cut() -> None:
    """No more early pings than a Go server forgives, and then only as often as it allows."""
    async with talking(pongs=True) as (talker, caller):
        code, _ = await failed(caller.call(PATH, b"x", 5.0))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 1 <= talker.pings <= 5
        assert not talker.ended.is_set()


async def test_a_connection_without_calls_is_looked_after() -> None:
    async with talking(pongs=False) as (talker, caller):
        assert (await failed(caller.call(PATH, b"x", 0.2)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(talker.ended.wait(), 60)
        assert talker.pings == 1


async def test_a_connection_that_is_used_is_not_pinged() -> None:
    async with serving(echo) as (_, port):
        caller = Caller(f"127.0.0.1:{port}", "", None, LIMIT, Pings((60.0, 60.0), 60.0, 60.0))
        assert await caller.call(PATH, b"x", 60.0) == b"x"
        connection = caller._connection
        assert connection is not None
        for _ in range(200):
            assert await caller.call(PATH, b"x", 60.0) == b"x"
        assert not connection.pulse.answers
        caller.close()
        assert connection.pulse._timer is None  # none is left


def spoken() -> tuple[Connection, Wire]:
    """A connection on which the server has said hello."""
    connection, wire = Connection("peer", False, 1_000, lambda _: None), Wire()
    connection.connection_made(wire)
    connection.data_received(frame(4, 0, 0, b"\0\x03\0\0\0\x01"))  # one call at a time
    return connection, wire


async def test_a_proxy_that_answers_for_the_peer_is_no_peer() -> None:
    connection, _ = spoken()
    call = asyncio.create_task(connection.unary("/a/b", b"x"))
    await asyncio.sleep(0)
    connection.data_received(frame(1, 5, 1, Encoder().encode([(":status", "503"), ("content-length", "0")])))
    with pytest.raises(CallFailed, match="HTTP status 503") as caught:
        await call
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    connection.connection_lost(None)


async def test_room_for_a_call_that_is_given_up_goes_to_the_next() -> None:
    connection, _ = spoken()
    calls = [asyncio.create_task(connection.unary("/a/b", b"x")) for _ in range(3)]
    await asyncio.sleep(0)
    connection.data_received(frame(1, 5, 1, b"\x88\x10\x0bgrpc-status\x010"))  # ends the first: the second is woken
    calls[1].cancel()
    await asyncio.wait(calls[:2])
    await asyncio.sleep(0)
    connection.data_received(frame(1, 4, 3, b"\x88") + frame(0, 0, 3, b"\0\0\0\0\x02ok"))
    connection.data_received(frame(1, 5, 3, b"\x10\x0bgrpc-status\x010"))
    assert await asyncio.wait_for(calls[2], 60) == b"ok"
    connection.connection_lost(None)


@pytest.mark.parametrize("setting", [b"\0\x04\xff\xff\xff\xff", b"\0\x05\0\0\0\0", b"\0\x05\x01\0\0\0"])
async def test_settings_that_nobody_may_make_end_the_connection(setting: bytes) -> None:
    connection, wire = spoken()
    call = asyncio.create_task(connection.unary("/a/b", b"x"))
    await asyncio.sleep(0)
    connection.data_received(frame(4, 0, 0, setting))
    with pytest.raises(CallFailed, match="does not speak HTTP/2"):
        await call
    assert wire.closed
