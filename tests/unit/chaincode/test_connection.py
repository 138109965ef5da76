"""A call that keeps its thread holds up no other one, until no thread is left."""

import asyncio
import socket
import threading

import pytest
from unit.chaincode.network import config, failure
from unit.chaincode.peer import Client, PeerDouble

from flexrelay_chaincode import wire
from flexrelay_chaincode.connection import Connection
from flexrelay_chaincode.context import Peer
from flexrelay_chaincode.pool import Pool
from flexrelay_chaincode.program import Answer
from flexrelay_chaincode.proposal import Invocation
from flexrelay_chaincode.server import ChaincodeServer
from flexrelay_chaincode.wire import Announced

CLIENT = Client.new()


class Computes:
    """Argument "hang": keeps its thread until `gate` opens, between two reads. Otherwise reads once."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def run(self, invocation: Invocation, peer: Peer, announced: Announced, answer: Answer) -> None:
        request = wire.GetState(key="a").SerializeToString()
        peer.ask(wire.ChaincodeMessage.GET_STATE, request)
        if invocation.args[0] == b"hang":
            self.gate.wait(120)
            peer.ask(wire.ChaincodeMessage.GET_STATE, request)
        answer.payload = invocation.args[0]


async def test_others_go_on_while_one_computes() -> None:
    program = Computes()
    async with (
        ChaincodeServer(config(threads=3, call_timeout_s=120.0), program) as server,
        PeerDouble(server.address) as peer,
    ):
        waiting = asyncio.create_task(peer.call([b"quick"], client=CLIENT))
        hanging = [asyncio.create_task(peer.call([b"hang"], client=CLIENT)) for _ in range(2)]
        await waiting
        for _ in range(20):
            assert (await peer.call([b"quick"], client=CLIENT)).payload == b"quick"
        assert not any(task.done() for task in hanging)
        program.gate.set()
        assert [(await task).payload for task in hanging] == [b"hang"] * 2
        assert (await peer.call([b"quick"], client=CLIENT)).status == 200
        assert server._pool.lend() and server._pool.lend()  # all were given back


async def test_calls_have_their_reply_when_no_thread_is_left() -> None:
    program = Computes()
    async with (
        ChaincodeServer(config(threads=1, call_timeout_s=1.0), program) as server,
        PeerDouble(server.address) as peer,
    ):
        assert failure(await peer.call([b"hang"], client=CLIENT)) == ("rejected", "deadline")
        assert server._pool.stalled_s > 0
        late = asyncio.create_task(peer.call([b"quick"], client=CLIENT))
        await asyncio.sleep(0.1)
        program.gate.set()
        found = await late
        while found.payload != b"quick":  # its time ran out on a machine that stood still
            assert failure(found) == ("rejected", "deadline")
            found = await peer.call([b"quick"], client=CLIENT)
        assert server._pool.stalled_s == 0


def test_a_stream_that_ends_while_its_connection_is_closed_hinders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading thread forgets sessions whenever their streams end, whoever looks at them."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        ours, _ = server.accept()
        connection = Connection(ours, "a peer", None, 65_536, Pool(1, 1), lambda _: pytest.fail("no"), lambda _: None)
        connection.sessions.update(dict.fromkeys((1, 3)))  # type: ignore[arg-type]  # nobody asks what they are
        monkeypatch.setattr(connection._http2, "finish", connection.sessions.pop)
        connection.close()
        assert not connection.sessions
        ours.close()


async def test_strangers_are_sent_away() -> None:
    async with ChaincodeServer(config()) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), 5) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            said = b""
            while data := await asyncio.to_thread(stranger.recv, 1000):
                said += data
        assert b"\x07" in said  # GOAWAY after the settings
        async with PeerDouble(server.address) as good:
            assert failure(await good.call([b"x"], client=CLIENT)) == ("rejected", "malformed_call")
