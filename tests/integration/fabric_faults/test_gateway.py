"""kill -9 of the gateway's process at marked points and at random moments, on a network that goes on."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import suppress

import pytest
from integration.fabric_faults.rig import PATIENCE_S, Rig
from support.chance import told_seed
from support.fabric_load import CONNECTED, ENOUGH, POINTS, STARTING, GatewayOrders, hit
from support.gateway import Marks, Nursery

LONGEST_RUN_S = 4.0
"""A process whose point did not come is killed where it is."""


async def kills(rig: Rig, seed: int, times: int) -> None:
    chance = random.Random(seed)
    folder = rig.chain.folder
    places = [*chance.sample(POINTS[2:], len(POINTS) - 2), STARTING, CONNECTED]
    marks = Marks(folder / "marks", points=POINTS)
    hits: Counter[str] = Counter()
    (folder / ENOUGH).unlink(missing_ok=True)
    async with Nursery.running() as nursery:
        for turn in range(times):
            point = places[turn % len(places)]
            orders = GatewayOrders(folder, seed, os.getpid(), point, chance.randrange(40), chance.randrange(2000))
            process = await nursery.start(orders)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.ended), LONGEST_RUN_S + chance.random())
            process.kill()
            assert hit(await process.ended), (folder / "gateway.log").read_text()[-3000:]
            hits[marks.point] += 1
        (folder / ENOUGH).touch()
        process = await nursery.start(GatewayOrders(folder, seed, os.getpid()))
        try:
            ended = await asyncio.wait_for(asyncio.shield(process.ended), PATIENCE_S)
        finally:
            process.kill()
            (folder / ENOUGH).unlink()
    assert ended == 0, (folder / "gateway.log").read_text()[-3000:]
    print("\n" + "\n".join(f"{count:4} {point}" for point, count in sorted(hits.items())), end="")
    await rig.audited(f"seed {seed}: {times} kills of the gateway")


@pytest.mark.timeout(1800)
async def test_kill_9_of_the_gateway(single: Rig) -> None:
    await kills(single, told_seed(), times=8)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
async def test_kill_9_of_the_gateway_many_times(single: Rig, seed: int) -> None:
    await kills(single, seed, times=60)
