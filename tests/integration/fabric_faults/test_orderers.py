"""Orderers are killed under load: what a leader took and lost is submitted again; the pause is told."""

from __future__ import annotations

import asyncio
import random

import pytest
from integration.fabric_faults.rig import Rig
from support.chance import told_seed

SEEN_S = 3.0
"""How long commits are watched after they go on."""


async def leaders(rig: Rig, seed: int, rounds: int, *, follower: bool = False) -> list[float]:
    """Kill the leader (or, first, one that does not lead) under load, `rounds` times; the pauses in seconds."""
    chance = random.Random(seed)
    pauses = []
    async with rig.loaded(seed) as running:
        await running.commits(20)
        for _ in range(rounds):
            leader = await rig.leader()
            if follower:
                other = chance.choice([name for name in rig.native.spec.orderer_names if name != leader])
                sent = await rig.kill(other)
                await running.commits(20)
                await rig.start(other)
                await running.commits(20)
                print(f"\nkill -9 of {other}, which follows: longest pause {running.pause_s(sent):.1f} s", end="")
                leader = await rig.leader()
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            sent = await rig.kill(leader)
            await running.commits(20)
            await asyncio.sleep(SEEN_S)
            pauses.append(running.pause_s(sent))
            print(f"\nkill -9 of {leader}, which leads: longest pause {pauses[-1]:.1f} s", end="")
            await rig.start(leader)
            await running.commits(20)
    await rig.audited(f"seed {seed}: {rounds} leaders killed")
    return pauses


@pytest.mark.timeout(600)
async def test_the_raft_leader_is_killed(raft: Rig) -> None:
    await leaders(raft, told_seed(), rounds=2)


@pytest.mark.timeout(600)
async def test_bft_orderers_are_killed(bft: Rig) -> None:
    await leaders(bft, told_seed(), rounds=1, follower=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
async def test_the_raft_leader_is_killed_many_times(raft: Rig, seed: int) -> None:
    await leaders(raft, seed, rounds=10)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
async def test_bft_orderers_are_killed_many_times(bft: Rig, seed: int) -> None:
    await leaders(bft, seed, rounds=10, follower=True)
