"""kill -9 of the gateway in mid-stream: what a device was answered 2.04 for is in the journal, whole and once.

`make soak` runs the full count.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from support.any_gateway import KilledGateway
from support.kills import LONGEST_S, PATIENCE_S
from support.load import JournalChecker
from support.lwm2m_devices import Device, address, free_ports

DEVICES = 40
CI_KILLS, SOAK_KILLS = 5, 120


async def campaign(folder: Path, kills: int, chance: random.Random) -> None:
    (port,) = free_ports(1)
    devices = [Device(number, port) for number in range(DEVICES)]
    lives = [asyncio.create_task(device.live(0.01)) for device in devices]
    section = {"coap": {"port": port}, "observe": [], "state": "registrations.db"}
    gateway = KilledGateway(folder, "lwm2m", section, [f"udp:{address(number)}" for number in range(DEVICES)])
    checker = JournalChecker(gateway.journal)
    acknowledged: Counter[bytes] = Counter()
    try:
        for _ in range(kills):
            before = sum(len(device.acknowledged) for device in devices)
            async with gateway.running():
                async with asyncio.timeout(PATIENCE_S):
                    while sum(len(device.acknowledged) for device in devices) < before + DEVICES:
                        gateway.check()
                        await asyncio.sleep(0.01)
                await asyncio.sleep(chance.uniform(0, LONGEST_S))
            await asyncio.sleep(0.1)  # what it has sent before arrives
            acknowledged = Counter(payload for device in devices for payload in device.acknowledged)
            await checker.check(acknowledged)
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
    registrations = sum(device.refused["4.04"] for device in devices)
    assert registrations == 0, "a registration was forgotten"
    print(f"\n{kills} kills, {sum(acknowledged.values()):,} acknowledged, {len(checker.stored):,} in the journal")


@pytest.mark.timeout(600)
async def test_a_few_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, CI_KILLS, random.Random(5))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await campaign(tmp_path, SOAK_KILLS, random.Random(seed))
