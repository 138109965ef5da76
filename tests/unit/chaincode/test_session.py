"""A session against arbitrary messages, and two peers at one process."""

import asyncio
import secrets
import time
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.chaincode.network import PACKAGE, config, failure
from unit.chaincode.peer import Client, Message, PeerDouble, transaction

from flexrelay_chaincode import wire
from flexrelay_chaincode.metrics import Metrics
from flexrelay_chaincode.pool import Pool
from flexrelay_chaincode.program import make_program
from flexrelay_chaincode.server import ChaincodeServer
from flexrelay_chaincode.session import Session
from flexrelay_contracts.invocation import query_args

CLIENT = Client.new()
CALL = transaction([], CLIENT, tx_id="ab" * 32).SerializeToString()


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(threads=2, limit=64)


def changed(draw: Any, data: bytes) -> bytes:
    """A good message with some bytes replaced, cut or added."""
    out = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(out)))
        out[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(out)


@st.composite
def messages(draw: Any) -> bytes:
    kind = draw(st.sampled_from(["noise", "message", "call", "changed call"]))
    if kind == "noise":
        noise: bytes = draw(st.binary(max_size=40))
        return noise
    if kind == "message":
        fields = {"txid": draw(st.text(max_size=5)), "channel_id": draw(st.text(max_size=5))}
        number = draw(st.integers(0, 30))
        data: bytes = Message(type=number, payload=draw(st.binary(max_size=40)), **fields).SerializeToString()
        return data
    args = draw(
        st.lists(st.one_of(st.sampled_from([b"submit", b"query", b"probe.get", b"{}"]), st.binary()), max_size=4)
    )
    message = Message.FromString(CALL)
    message.txid = draw(st.sampled_from(["ab" * 32, "cd" * 32, ""]))
    message.payload = wire.ChaincodeInput(args=args).SerializeToString()
    good: bytes = message.SerializeToString()
    return changed(draw, good) if kind == "changed call" else good


@given(received=st.lists(messages(), max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_message_breaks_a_session(received: list[bytes], pool: Pool) -> None:
    sent: list[bytes] = []
    session = Session(config(call_timeout_s=0.2), make_program(config()), pool, Metrics(), sent.append)
    session.receive(Message(type=Message.READY).SerializeToString())
    for data in received:
        session.receive(data)
    tx_id = secrets.token_hex(32)
    last = transaction(query_args("probe.nothing", {}), CLIENT, tx_id=tx_id)
    session.receive(last.SerializeToString())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        session.expire()
        replies = [Message.FromString(data) for data in list(sent)]
        if any(reply.txid == tx_id and reply.type == Message.COMPLETED for reply in replies):
            return
        time.sleep(0.001)
    raise AssertionError("the good call after them had no reply")


async def test_two_peers_have_streams_of_their_own() -> None:
    async with (
        ChaincodeServer(config()) as server,
        PeerDouble(server.address) as one,
        PeerDouble(server.address, write_batch=0, multiple=0) as two,
    ):
        one.state["a"], two.state["a"] = b"of one", b"of two"
        tx_id, args = "ab" * 32, query_args("probe.get", {"key": "a"})
        found = [await peer.call(args, client=CLIENT, tx_id=tx_id, commit=False) for peer in (one, two)]
        assert [result.payload for result in found] == [b'"of one"', b'"of two"']
        again = await two.call(query_args("probe.nothing", {}), client=CLIENT, tx_id=tx_id)
        assert failure(again) == ("refused", "unknown_function")


async def test_a_peer_that_does_not_take_the_registration_is_told_why() -> None:
    async with ChaincodeServer(config()) as server:
        peer = PeerDouble(server.address)
        peer.refuses = True
        async with peer:
            code, said = await asyncio.wait_for(peer.ended(), 60)
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert f"does not take the registration as {PACKAGE}" in said
            assert not server.healthy
        async with PeerDouble(server.address) as good:
            assert failure(await good.call([b"x"], client=CLIENT)) == ("rejected", "malformed_call")
            await asyncio.sleep(0.2)
            assert server.healthy
