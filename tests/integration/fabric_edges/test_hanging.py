"""A connection to a peer on which nothing comes: the peer is slow, or it hangs. Pings tell which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from integration.fabric_edges.consortium import PATIENCE_S, Consortium
from support.chain import Signer, wall_ms

from flexrelay.ledger.fabric.channel import MAX_MESSAGE_BYTES, _context
from flexrelay.ledger.fabric.http2 import SILENT
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.messages import Envelope
from flexrelay.ledger.fabric.pings import PINGS, Pings
from flexrelay.ledger.fabric.proposal import seek_payload
from flexrelay.ledger.fabric.rpc import Caller

pytestmark = pytest.mark.timeout(1800)
NEVER_S = 500.0


@asynccontextmanager
async def caller(consortium: Consortium, pings: Pings) -> AsyncIterator[Caller]:
    peer = consortium.profile("dso").own_peers[0]
    context = _context(Path(peer.tls_ca).read_bytes())
    made = Caller(peer.endpoint, peer.server_name, context, MAX_MESSAGE_BYTES, pings)
    try:
        yield made
    finally:
        made.close()


async def slow_call(consortium: Consortium, made: Caller) -> bytes:
    """A call that a peer that is well gives no answer to: it waits for the next block, which nobody makes."""
    async with consortium.connect_patiently("dso") as ledger:
        coming = await ledger.height()
    identity = Identity(consortium.profile("dso"), Signer(consortium.gateways["dso"]))
    payload = seek_payload("market", identity.creator, wall_ms(), coming, None, b"")
    envelope = Envelope(payload=payload, signature=await identity.sign(payload))
    return await made.call("/protos.Deliver/Deliver", envelope.SerializeToString(), NEVER_S)


async def test_a_slow_call_goes_on_and_a_hanging_peer_is_noticed(consortium: Consortium) -> None:
    async with caller(consortium, Pings(waiting_s=(0.5, 2.0), answer_s=12.0)) as made:
        call = asyncio.create_task(slow_call(consortium, made))
        async with asyncio.timeout(PATIENCE_S):
            while (connection := made._connection) is None or not connection.pulse.answers:
                assert not call.done(), call
                await asyncio.sleep(0.02)
        assert not call.done() and made._connection is connection
        consortium.native.stop("peer0.dso")
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(call, PATIENCE_S)
        finally:
            consortium.native.cont("peer0.dso")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (caught.value.details() or "").startswith(SILENT)
    await consortium.answers("dso")


@pytest.mark.soak
async def test_no_peer_takes_the_pings_amiss(consortium: Consortium) -> None:
    """Peers end connections that ping too often. As they are set by themselves: a call without an answer, and a
    connection without a call, for more than three pings of each kind."""
    async with caller(consortium, PINGS) as waiting, caller(consortium, PINGS) as idle:
        call = asyncio.create_task(slow_call(consortium, waiting))
        with pytest.raises(grpc.aio.AioRpcError):
            await idle.call("/gateway.Gateway/Nothing", b"", 60.0)
        connections = waiting, idle._connection
        await asyncio.sleep(4 * PINGS.idle_s + 10)
        assert not call.done()
        assert (waiting, idle._connection) == connections
        assert idle._connection is not None and idle._connection._open
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
