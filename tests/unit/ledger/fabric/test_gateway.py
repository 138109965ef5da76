"""Which peers are called, how many calls are under way, and how long a peer is waited for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from unit.ledger.fabric.server import BlockServer
from unit.ledger.fabric.test_follower import Me
from unit.ledger.fabric.world import CHAINCODE, CHANNEL, World

from flexrelay.ledger.fabric.gateway import Gateway, Limits
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.port import LedgerUnavailable


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
    async with calling(world, Limits(evaluate_s=1.0), hanging, other) as gateway:
        await gateway.evaluate("qscc", [b"x"], 1)
        began = time.monotonic()
        for _ in range(5):
            await gateway.evaluate("qscc", [b"x"], 1)
        assert time.monotonic() - began < 1.0  # it rests: nobody waits for it again
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
        async with asyncio.timeout(10):
            while hanging.running < 4:  # noqa: ASYNC110 (the server counts)
                await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        pool.give_up(peers[0])
        async with asyncio.timeout(10):
            await asyncio.gather(*calls)
        assert other.most_running >= 1
