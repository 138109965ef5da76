"""1,000 good devices (ten sessions on a server of node-opcua) beside 100 hostile servers, all in one process."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.chance import told_seed
from support.opcua_hostile import SPEAKING, SPOILING, Hostile
from support.opcua_server import NodeServer, node_server, now_ms, section

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_sdk.testkit import RecordingSink, until

pytestmark = pytest.mark.timeout(1800)
PATIENCE_S = 400.0
GOOD, SESSIONS, HOSTILE, ROUNDS = 1000, 10, 100, 3
SPOILED = 3
"""Hostile servers of each kind that stand before a real one; the others need none."""
GROWTH_BYTES = 400 * 2**20
"""Of the process, in which the hostile servers are, too."""


def devices(names: list[str], server: NodeServer) -> dict[str, Any]:
    return {name: {"registers": {"power_w": {"node": server.node(f"{name}.power"), "unit": "W"}}} for name in names}


def made(name: str, folder: Path, server: NodeServer, names: list[str], **more: Any) -> OpcuaAdapter:
    values = section(server, folder, **{"state": str(folder / name), **more})
    return OpcuaAdapter(OpcuaConfig.from_section(name, {**values, "devices": devices(names, server)}))


@asynccontextmanager
async def running(adapters: list[OpcuaAdapter], sink: RecordingSink) -> AsyncIterator[list[asyncio.Task[None]]]:
    """All at once; none may end by itself."""
    tasks = [asyncio.create_task(adapter.run(sink), name=f"run {adapter.name}") for adapter in adapters]
    try:
        yield tasks
        for task in tasks:
            assert not task.done(), f"{task.get_name()} has ended: {task.exception()!r}"
    finally:
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=PATIENCE_S)
        assert not left, f"{len(left)} adapters go on after their cancellation"


async def test_a_thousand_good_devices_beside_a_hundred_hostile_servers(tmp_path: Path) -> None:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)  # it tells of every attack
    seed = told_seed()
    names = [f"d{number}" for number in range(GOOD)]
    values: dict[str, list[int]] = defaultdict(list)
    async with (
        node_server(tmp_path / "good", devices={name: ["power"] for name in names}, history=False) as server,
        node_server(tmp_path / "real", maxSessions=5000, initial=1, history=False) as real,
        Hostile.running(seed, real.port) as hostile,
    ):
        share = GOOD // SESSIONS
        good = [
            made(f"good{n}", tmp_path, server, names[n * share : (n + 1) * share], publishing_ms=200.0, queue=10)
            for n in range(SESSIONS)
        ]
        kinds = [*SPEAKING, *SPOILING]
        spoiling = [kind for kind in SPOILING for _ in range(SPOILED)]
        speaking = [kind for _ in range(HOSTILE) for kind in SPEAKING][: HOSTILE - len(spoiling)]
        evil = []
        for number, kind in enumerate([*spoiling, *speaking]):
            url = f"opc.tcp://127.0.0.1:{await hostile.open(kind)}/test"
            short = {"keep_s": 30, "backoff_min_s": 1.0, "backoff_max_s": 10.0, "queue": 10}
            evil.append(made(f"evil{number}", tmp_path, real, ["meter"], url=url, **short))
        assert len(evil) == HOSTILE
        sink, theirs = RecordingSink(), RecordingSink()
        async with running(good, sink):
            await until(lambda: all(each.connected for each in good), PATIENCE_S, "the good ones' connections")
            before, start = psutil.Process().memory_info().rss, now_ms() - 10_000
            async with running(evil, theirs):
                for turn in range(ROUNDS):
                    attacks = sum(hostile.attacks.values())
                    await until(lambda n=attacks: sum(hostile.attacks.values()) > n, PATIENCE_S, "attacks")  # type: ignore[misc]  # bound now
                    await server.tell("all", name="power", **{"from": turn * GOOD}, time=start + turn)
                    await real.set("meter.power", turn)
                    await until(lambda n=(turn + 1) * GOOD: len(sink.values()) >= n, PATIENCE_S, "the good readings")  # type: ignore[misc]  # bound now
                await until(lambda: set(hostile.attacks) == set(kinds), PATIENCE_S, "attacks of every kind")
                grown = psutil.Process().memory_info().rss - before
            assert all(each.connected and each.stats.connections == 1 for each in good), "a good one was cut off"
    for stored in sink.stored:
        name = stored.frame.credential.rpartition("/")[2]
        values[name] += [m.registers["power_w"] for m in stored.measurements]
    assert values == {name: [turn * GOOD + n for turn in range(ROUNDS)] for n, name in enumerate(names)}
    assert sink.dead == [] and sink.faults == [] and theirs.faults == []
    print(f"\n{dict(hostile.attacks)}, grown by {grown / 2**20:.0f} MiB, {len(theirs.stored)} of their readings taken")
    assert grown < GROWTH_BYTES
