"""Chaincodes, peers and the only orderer are killed under load; a peer hangs: every intent has its one end."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from integration.fabric_faults.rig import Rig
from support.chance import told_seed

from flexrelay.ledger.port import LedgerUnavailable

NODES = ("flexrelay.dso", "flexrelay.agga", "peer0.dso", "peer0.agga", "peer0.aggb", "orderer0")


async def kills(rig: Rig, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    async with rig.loaded(seed) as running:
        await running.commits(20)
        for _ in range(rounds):
            for name in chance.sample(NODES, len(NODES)):
                await asyncio.sleep(chance.uniform(0, 0.5))
                sent = await rig.kill(name)
                await asyncio.sleep(chance.uniform(0, 1.5))
                await rig.start(name)
                await running.commits(10)
                print(f"\nkill -9 of {name}: longest pause {running.pause_s(sent):.1f} s", end="", flush=True)
    assert running.load.ends["CommittedIntent"] > 0
    await rig.audited(f"seed {seed}: {rounds} x {len(NODES)} kills")


@pytest.mark.timeout(1800)
async def test_each_node_is_killed_under_load(single: Rig) -> None:
    await kills(single, told_seed(), rounds=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
async def test_each_node_is_killed_many_times(single: Rig, seed: int) -> None:
    await kills(single, seed, rounds=5)


@pytest.mark.timeout(1800)
async def test_peers_hang_under_load(single: Rig) -> None:
    """SIGSTOP: connections stay open, nothing answers. First the gateway's own peer, then another's."""
    seed = told_seed()
    async with single.loaded(seed) as running:
        await running.commits(10)
        for name in ("peer0.dso", "peer0.agga"):
            sent = time.monotonic()
            single.native.stop(name)
            try:
                await running.commits(10)
            finally:
                single.native.cont(name)
            await running.commits(10)
            print(f"\nSIGSTOP of {name}: longest pause {running.pause_s(sent):.1f} s", end="", flush=True)
    await single.audited(f"seed {seed}: two peers stopped and continued")


@pytest.mark.timeout(1800)
async def test_more_than_five_hundred_under_way(single: Rig) -> None:
    """More than a peer serves at once: it says so, and every intent has its end all the same."""
    seed = told_seed()
    async with single.loaded(seed, width=680, in_flight=600, waiting=680) as running:
        most = 0
        while len(running.load.commits) < 100:
            await asyncio.sleep(0.01)
            most = max(most, running.relay.in_flight)
    assert most > 500
    await single.audited(f"seed {seed}: up to {most} under way at once")


@pytest.mark.timeout(1800)
async def test_a_slow_contract_does_not_stop_the_others(single: Rig) -> None:
    """Its calls and queries are ended by their deadline; it expires, everything else goes on."""
    seed = told_seed()
    async with single.loaded(seed) as running:
        await running.commits(10)
        slow = await running.outbox.add(
            single.chain.intent("slow.wait", {"ms": 60_000}, name=f"slow-{seed}", life_ms=8_000)
        )
        with pytest.raises(LedgerUnavailable):
            await running.ledger.evaluate("slow.waited", {"ms": 60_000})
        await running.commits(20)
        ended = await running.outbox.wait(slow)
        assert type(ended).__name__ == "ExpiredIntent", ended
    await single.audited(f"seed {seed}: a slow call")
