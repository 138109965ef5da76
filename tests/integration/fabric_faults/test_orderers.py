"""Orderers are killed under load: what a leader took and lost is submitted again; the pause is told."""

from __future__ import annotations

import asyncio
import random

import pytest
from integration.fabric_faults.rig import Rig, Running
from support.chance import told_seed

TAKES_PART_S = 8.0
SEEN_S = 3.0
"""How long commits are watched after they go on."""


async def leaders(rig: Rig, seed: int, rounds: int, *, followers: bool = False) -> list[float]:
    """Kill the leader (and then one that follows) under load, `rounds` times; the pauses after leaders' deaths in
    seconds."""
    chance = random.Random(seed)
    pauses = []
    async with rig.loaded(seed) as running:
        await running.commits(20)
        for number in range(rounds):
            leader = await settled(rig, running, first=number == 0)
            pauses.append(await killed(rig, running, leader, "leads", chance))
            if followers:
                leader = await settled(rig, running)
                other = chance.choice([name for name in rig.native.spec.orderer_names if name != leader])
                await killed(rig, running, other, "follows", chance)
    await rig.audited(f"seed {seed}: {rounds} leaders killed, pauses {', '.join(f'{pause:.1f}' for pause in pauses)} s")
    return pauses


async def settled(rig: Rig, running: Running, *, first: bool = False) -> str:
    """The leader, when the orderer that came back takes part again. Before that it is one fault, and the next death the
    second: four BFT orderers bear one. `soon` is the test of what then happens."""
    if rig.native.spec.consensus == "bft" and not first:
        await running.commits(20)
        await asyncio.sleep(TAKES_PART_S)
    return await rig.leader()


async def soon(rig: Rig, seed: int, rounds: int) -> list[float]:
    """Kill a BFT leader, start it again, and kill the next one within seconds, `rounds` times; the second pauses."""
    chance = random.Random(seed)
    pauses = []
    async with rig.loaded(seed) as running:
        await running.commits(20)
        for number in range(rounds):
            leader = await settled(rig, running, first=number == 0)
            await rig.kill(leader)
            await running.commits(20)
            await rig.start(leader)
            waited = chance.uniform(0.5, 4.0)
            await asyncio.sleep(waited)
            pauses.append(await killed(rig, running, await rig.led(), f"leads {waited:.1f} s after a return", chance))
    told = ", ".join(f"{pause:.1f}" for pause in pauses)
    await rig.audited(f"seed {seed}: {rounds} second deaths, pauses {told} s; stood still: {rig.stood or 'none'}")
    return pauses


async def killed(rig: Rig, running: Running, name: str, what: str, chance: random.Random) -> float:
    """Kill it, see commits go on, start it again. The longest pause in seconds."""
    await asyncio.sleep(chance.uniform(0.2, 1.0))
    sent = await rig.kill(name)
    await running.commits(20)
    await asyncio.sleep(SEEN_S)
    pause = running.pause_s(sent)
    print(f"\nkill -9 of {name}, which {what}: longest pause {pause:.1f} s", end="", flush=True)
    await rig.start(name)
    await running.commits(20)
    return pause


@pytest.mark.timeout(1800)
async def test_the_raft_leader_is_killed(raft: Rig) -> None:
    await leaders(raft, told_seed(), rounds=2)


@pytest.mark.timeout(1800)
async def test_the_bft_leader_is_killed(bft: Rig) -> None:
    """One death: a second one soon after an orderer's return can cost SmartBFT most of a minute, see `settled`."""
    await leaders(bft, told_seed(), rounds=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
async def test_the_raft_leader_is_killed_many_times(raft: Rig, seed: int) -> None:
    await leaders(raft, seed, rounds=10)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
async def test_bft_orderers_are_killed_many_times(bft: Rig, seed: int) -> None:
    await leaders(bft, seed, rounds=5, followers=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2))
async def test_a_second_bft_leader_dies_soon_after_the_first_ones_return(bft: Rig, seed: int) -> None:
    await soon(bft, seed, rounds=5)
