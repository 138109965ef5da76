"""Which peers are called, how many calls are under way, and how long a peer is waited for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Any_
from unit.ledger.fabric.server import BlockServer
from unit.ledger.fabric.test_follower import Me
from unit.ledger.fabric.world import CHAINCODE, CHANNEL, World

from flexrelay.ledger.fabric import Behind
from flexrelay.ledger.fabric import messages as pb
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.gateway import Gateway, Limits
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.port import LedgerUnavailable
from flexrelay_contracts.invocation import Failure, encode_failure
from flexrelay_contracts.refusal import Refused


@asynccontextmanager
async def calling(world: World, limits: Limits, *servers: BlockServer) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.serving()) for server in servers]
        me: Any = Me(world.client)
        yield Gateway(CHANNEL, me, PeerPool(peers, "dso"), world.trust, limits)


async def test_transient_values_never_go_to_another_organisations_peer(world: World) -> None:
    own, other = BlockServer("dso", []), BlockServer("agga", [])
    async with calling(world, Limits(), own, other) as gateway:
        with pytest.raises(LedgerUnavailable):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {"value": b"private"}, [])
        assert (own.endorsed, other.endorsed) == (1, 0)
        with pytest.raises(LedgerUnavailable):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])
        assert other.endorsed == 1


async def test_calls_under_way_are_bounded(world: World) -> None:
    server = BlockServer("dso", [])
    server.answer_s = 0.02
    async with calling(world, Limits(in_flight=4), server) as gateway:
        await asyncio.gather(*(gateway.evaluate("qscc", [b"x"], 1) for _ in range(40)))
    assert server.most_running == 4


async def test_a_peer_that_does_not_answer_is_left_for_another(world: World) -> None:
    hanging, other = BlockServer("dso", []), BlockServer("agga", [])
    hanging.answer_s = 30.0
    async with calling(world, Limits(evaluate_s=4.0), hanging, other) as gateway:
        await gateway.evaluate("qscc", [b"x"], 1)
        began = time.monotonic()
        for _ in range(5):
            await gateway.evaluate("qscc", [b"x"], 1)
        assert time.monotonic() - began < 15.0  # it rests: nobody waits for it again
        with pytest.raises(LedgerUnavailable):
            await gateway.evaluate("qscc", [b"x"], 1, own_only=True)


async def test_calls_that_run_at_a_hanging_peer_go_on_at_another(world: World) -> None:
    """Whoever finds that it hangs ends what waits for it."""
    hanging, other = BlockServer("dso", []), BlockServer("agga", [])
    hanging.answer_s = 30.0
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.serving()) for server in (hanging, other)]
        me: Any = Me(world.client)
        pool = PeerPool(peers, "dso")
        gateway = Gateway(CHANNEL, me, pool, world.trust, Limits(evaluate_s=20.0))
        calls = [asyncio.create_task(gateway.evaluate("qscc", [b"x"], 1)) for _ in range(3)]
        cancelled = asyncio.create_task(gateway.evaluate("qscc", [b"x"], 1))
        async with asyncio.timeout(60):
            while hanging.running < 4:  # noqa: ASYNC110 (the server counts)
                await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        pool.give_up(peers[0])
        async with asyncio.timeout(60):
            await asyncio.gather(*calls)
        assert other.most_running >= 1


class Seen:
    """A sight of so many blocks, none of them shown by anyone."""

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self.shown: dict[str, int] = {}


def refusing(server: BlockServer, address: str, code: str = "funds") -> None:
    """From now on it refuses as a contract does, in the name of the peer at `address`."""
    message = "chaincode response 500, " + encode_failure(Failure("refused", code, "too little", "account"))
    detail = Any_()
    detail.Pack(pb.ErrorDetail(address=address, msp_id=server.org, message=message))
    detail.type_url = "type.googleapis.com/gateway.ErrorDetail"
    server.refusal = pb.RpcStatus(code=10, message="x", details=[detail]).SerializeToString()


@asynccontextmanager
async def lagging(world: World, seen: int, *servers: BlockServer) -> AsyncIterator[tuple[Gateway, list[PeerChannel]]]:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.serving()) for server in servers]
        me: Any = Me(world.client)
        gateway = Gateway(CHANNEL, me, PeerPool(peers, "dso"), world.trust, Limits(evaluate_s=20.0))
        gateway.look_by(Seen(seen))
        for server, peer in zip(servers, peers, strict=True):
            refusing(server, peer.address)
        yield gateway, peers


async def test_a_refusal_counts_from_a_peer_that_has_all_that_was_seen(world: World) -> None:
    server = BlockServer("dso", [None] * 7)
    async with lagging(world, 7, server) as (gateway, peers):
        with pytest.raises(Refused, match="too little"):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])
        assert server.endorsed == 2  # its height was known only after the first time
        with pytest.raises(Refused):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])
        assert server.endorsed == 3
        gateway.look_by(Seen(8))
        with pytest.raises(Behind, match=f"8 blocks seen, {peers[0].address} of dso has 7"):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])


async def test_what_a_stand_in_may_not_read_is_no_refusal(world: World) -> None:
    """Another organisation's peer, asked while the own one rests, is no member of the own collection."""
    own, other = BlockServer("dso", [None] * 3), BlockServer("agga", [None] * 3)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.serving()) for server in (own, other)]
        me: Any = Me(world.client)
        pool = PeerPool(peers, "dso")
        gateway = Gateway(CHANNEL, me, pool, world.trust, Limits())
        gateway.look_by(Seen(3))
        refusing(other, peers[1].address, "private_not_member")
        other.refuses_queries = True
        pool.failed(peers[0], "it was slow", hangs=True)
        assert await gateway.evaluate(CHAINCODE, [b"query"], 1)
        pool.failed(peers[0], "it was slow", hangs=True)
        with pytest.raises(LedgerUnavailable, match=r"agga cannot stand in for the own organisation's"):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])
        assert own.endorsed == 1 and other.endorsed >= 1
        refusing(own, peers[0].address, "private_not_member")
        with pytest.raises(Refused):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])


async def test_a_refusal_of_a_peer_that_the_profile_does_not_name(world: World) -> None:
    server = BlockServer("dso", [None] * 3)
    async with lagging(world, 7, server) as (gateway, _):
        refusing(server, "somewhere.else:7051")
        with pytest.raises(Behind):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])
        server.blocks += [None] * 4
        with pytest.raises(Refused):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])


async def test_where_one_is_behind_another_refuses_for_good(world: World) -> None:
    own, other = BlockServer("dso", [None] * 6), BlockServer("agga", [None] * 7)
    async with lagging(world, 7, own, other) as (gateway, _):
        with pytest.raises(Refused):
            await gateway.endorse(CHAINCODE, [b"submit", b"{}"], 1, {}, [])
        assert (own.endorsed, other.endorsed) == (1, 2)


async def test_a_query_waits_for_a_peer_that_has_all_that_was_seen(world: World) -> None:
    own, other = BlockServer("dso", [None] * 6), BlockServer("agga", [None] * 6)
    async with lagging(world, 7, own, other) as (gateway, _):
        with pytest.raises(Behind, match="6 blocks, and 7"):
            await gateway.evaluate("qscc", [b"x"], 1, current=True, timeout_s=0.2)
        asking = asyncio.create_task(gateway.evaluate("qscc", [b"x"], 1, current=True))
        await asyncio.sleep(0.2)
        assert not asking.done()
        other.blocks.append(None)
        info = pb.BlockchainInfo.FromString(await asyncio.wait_for(asking, 60))
        assert info.height == 7
        await gateway.evaluate("qscc", [b"x"], 1)  # a question to the peer itself is not about the state


async def test_what_is_asked_of_one_peer_no_other_answers(world: World) -> None:
    """A peer's gateway may let another of its organisation execute: what verifies a peer does not go through it."""
    server = BlockServer("dso", [None] * 3)
    async with lagging(world, 0, server) as (gateway, peers):
        info = pb.BlockchainInfo.FromString(await gateway.executed(peers[0], CHAINCODE, [b"query"], 1))
        assert (info.height, await gateway.height(peers[0]), server.most_running) == (3, 3, 0)
        server.answer = (500, encode_failure(Failure("refused", "no", "not here")))
        with pytest.raises(Refused, match="not here"):
            await gateway.executed(peers[0], CHAINCODE, [b"query"], 1)
        server.answer = (500, "failed to execute: no such chaincode process")
        with pytest.raises(LedgerUnavailable, match="no such chaincode process"):
            await gateway.executed(peers[0], CHAINCODE, [b"query"], 1)
        with pytest.raises(LedgerUnavailable, match="does not tell its height"):
            await gateway.height(peers[0])
