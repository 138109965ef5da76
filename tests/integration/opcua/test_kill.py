"""kill -9 of the gateway under load: what it acknowledged to node-opcua is in the journal, the rest comes again."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest
from support.any_gateway import KilledGateway
from support.opcua_rig import secured, server_options
from support.opcua_server import NodeServer, node_server, now_ms

from flexrelay.journal import SqliteJournal
from flexrelay_adapters.opcua import OpcuaConfig
from flexrelay_sdk.testkit import until

pytestmark = pytest.mark.timeout(1800)
PATIENCE_S = 150.0


async def stored(folder: Path) -> list[int]:
    async with SqliteJournal(folder / "journal.db") as journal:
        await journal.verify()
        entries = await journal.read(0, 10**6)
        return [m.registers["power_w"] for entry in entries for m in entry.measurements]


async def load(server: NodeServer, stop: asyncio.Event) -> int:
    """Readings 0, 1, 2, … of one ms each, about 100 a second, so that the server's queue outlasts a restart."""
    count, start_ms = 0, now_ms() - 10**6
    while not stop.is_set():
        await server.tell("many", key="meter.power", **{"from": count}, count=10, time=start_ms + count)
        count += 10
        await asyncio.sleep(0.1)
    return count


async def campaign(folder: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    async with node_server(folder / "server", **server_options(), history=False, historyFile="") as server:
        section = secured(server, folder, keys=("power",), queue=50_000)
        stop = asyncio.Event()
        config = OpcuaConfig.from_section("site", section)
        gateway = KilledGateway(folder, "opcua", section, [config.credential(name) for name in config.devices])
        await gateway.start()
        try:
            while not server.acknowledged:  # only what the subscription has seen comes again
                await server.set("meter.power", 10**6, time_ms=now_ms() - 10**7 + int(time.monotonic()))
                await asyncio.sleep(0.2)
            loading = asyncio.create_task(load(server, stop))
            for _ in range(kills):
                seen = len(server.acknowledged)
                await until(lambda n=seen: len(server.acknowledged) > n, PATIENCE_S, "an acknowledgement")
                await asyncio.sleep(chance.random())
                await gateway.kill()
                await asyncio.sleep(0.2)  # what is on its way arrives
                acknowledged = {int(value) for value in server.acknowledged}
                assert acknowledged <= set(await stored(folder)), f"seed {seed}: acknowledged, but not in the journal"
                await gateway.start()
            stop.set()
            count = await loading
            await until(lambda: count - 1 in server.acknowledged, PATIENCE_S, "the last acknowledgement")
        finally:
            stop.set()
            await gateway.kill()
        found = [number for number in await stored(folder) if number != 10**6]
        print(f"{kills} kills, seed {seed}: {count:,} readings, {len(found):,} in the journal")
        missing = sorted(set(range(count)) - set(found))
        assert missing == [], f"seed {seed}: {len(missing)} lost, e.g. {missing[:5]}; {server.log()[-300:]}"
        assert len(found) == count, "something stands twice"


def _seed() -> int:
    return int(os.environ.get("FLEXRELAY_FUZZ_SEED") or time.time_ns() % 2**32)


async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    await campaign(tmp_path, 2, _seed())


@pytest.mark.soak
async def test_nothing_acknowledged_is_lost_in_fifty_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, 50, _seed())
