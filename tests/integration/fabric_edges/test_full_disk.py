"""No room at a peer: the others go on, the gateway falls back on them, and with room the peer has every block again."""

from __future__ import annotations

import asyncio
import time

import pytest
from integration.fabric_faults.rig import PATIENCE_S, Rig
from support.chance import told_seed
from support.fabric import CHANNEL
from support.small_disk import small_disk

pytestmark = pytest.mark.timeout(1800)


def height(rig: Rig, name: str) -> int:
    """The peer's blocks, 0 while it does not answer."""
    return next(item.heights.get(CHANNEL, 0) for item in rig.native.status() if item.name == name)


async def stuck(rig: Rig, name: str) -> int:
    """The height at which the peer stays while the others go on; it may have ended."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            before, other = height(rig, name), height(rig, "peer0.aggb")
            await asyncio.sleep(2)
            if height(rig, name) in (0, before) and height(rig, "peer0.aggb") > other + 3:
                return before


@pytest.mark.parametrize("mount", [None, pytest.param(False, marks=pytest.mark.soak)])
async def test_a_full_disk_at_a_peer(rig: Rig, mount: bool | None) -> None:
    seed = told_seed()
    name = "peer0.dso"  # the gateway's own
    await asyncio.to_thread(rig.native.processes.stop, [name])
    with small_disk(rig.native.folder.data(name), mount=mount) as disk:
        await rig.start(name)
        async with rig.loaded(seed) as running:
            await running.commits(10)
            pid = rig.native.pid(name)
            assert pid is not None
            disk.fill(pid)
            began = time.monotonic()
            stood = await stuck(rig, name)
            await running.commits(20)
            ended = rig.native.pid(name) is None
            print(f"\n{disk.kind}: {name} {'ended' if ended else 'stands'} at block {stood}", end="")
            print(f" after {time.monotonic() - began:.0f} s", end="")
            disk.free(rig.native.pid(name))
            await running.commits(10)
            async with asyncio.timeout(PATIENCE_S):
                while height(rig, name) <= stood + 3:
                    if rig.native.pid(name) is None:  # it had ended, or did so only now
                        await rig.start(name)
                    await asyncio.sleep(0.2)
        await asyncio.to_thread(rig.native.processes.stop, [name])
    await rig.start(name)
    await rig.audited(f"seed {seed}: a full disk ({disk.kind})")
