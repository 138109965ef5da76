"""kill -9 of a Sparkplug host under the data of sparkplug-client: nothing torn, nothing twice, and after each restart
births make the state whole.

None of Sparkplug's data is acknowledged: it is QoS 0, and a host's session is clean (Sparkplug 3.0). What is promised
instead: what the edge node measures from the moment at which it learns that its primary host is offline comes as
history, so a kill costs at most what was under way, one run without holes. `make soak` runs the full count.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from conformance.adapters.sparkplug.rig import section
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.commanding_gateway import CommandingGateway
from support.kills import LONGEST_S, PATIENCE_S, kills_amid_commands
from support.mosquitto import mosquitto
from support.sparkplug_edge import ACCOUNTS, GROUP, NODE, Edge, need_sparkplug_client

from flexrelay.journal import SqliteJournal
from flexrelay_sdk.testkit import Behaviour, until

pytestmark = pytest.mark.mosquitto

DEVICES = ("meter1", "meter2")
CI_KILLS, SOAK_KILLS = 5, 60


class Measuring:
    """Numbers from 0 on, each sent once, by one device after the other; `held` are those of an edge node that knew
    that its host was away."""

    def __init__(self, edge: Edge) -> None:
        self.sent = 0
        self.held: set[int] = set()
        self._edge = edge
        self._enough = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            await self.end()

    async def end(self) -> None:
        """Nothing is on its way to the edge node when it returns."""
        self._enough.set()
        await self._task

    async def _run(self) -> None:
        while not self._enough.is_set():
            answer = await self._edge.send(self.sent, DEVICES[self.sent % len(DEVICES)])
            if answer.get("held"):
                self.held.add(self.sent)
            self.sent += 1
            await asyncio.sleep(0.01)  # an instant of its own


class Host:
    """Processes of the gateway, one after the other."""

    def __init__(self, gateway: KilledGateway, edge: Edge, load: Measuring) -> None:
        self._gateway = gateway
        self._edge = edge
        self._load = load
        self._before: set[int] = set()
        """Held for processes that are dead."""

    @asynccontextmanager
    async def born(self) -> AsyncIterator[int]:
        """A process that has on disk all that was held for it, and a reading that was not; the first number of it.
        Killed at the end, which the edge node knows then."""
        load = self._load
        await self._until(lambda: load.held > self._before, "something that the edge node holds")
        first, told = min(load.held - self._before), self._offline()
        async with self._gateway.running():
            await self.until_stored(lambda: len(load.held - self._before) + 1)
            yield first
            self._before = set(load.held)
        await self._until(lambda: self._offline() > told, "the word that the host is offline")
        assert (await self.stored()).keys() >= self._before, "what was held is not in the journal"

    async def until_stored(self, count: Callable[[], int]) -> None:
        """Readings that the newest process has on disk."""

        def done() -> bool:
            self._gateway.check()
            return self._gateway.stored >= count()

        await self._until(done, "the readings")

    async def stored(self) -> Counter[int]:
        async with SqliteJournal(self._gateway.journal) as journal:
            await journal.verify()
            letters = await journal.letters()
            assert not letters, f"dead letter: {letters[0].reason} {letters[0].message}"
            entries = await journal.read(0, 10**6)
        return Counter(m.registers["power_w"] for entry in entries for m in entry.measurements)

    def _offline(self) -> int:
        return sum(each["event"] == "state" and not each["state"]["online"] for each in self._edge.events)

    @staticmethod
    async def _until(condition: Callable[[], bool], what: str) -> None:
        await until(condition, PATIENCE_S, what)


async def campaign(folder: Path, kills: int) -> None:
    need_sparkplug_client()
    chance = random.Random(told_seed())
    async with (
        mosquitto(folder / "broker", ACCOUNTS) as broker,
        Edge.started(broker.port, folder / "edge.log", devices=DEVICES) as edge,
    ):
        devices = [f"{GROUP}/{NODE}/{device}" for device in DEVICES]
        load = Measuring(edge)
        host = Host(KilledGateway(folder, "sparkplug", section(broker.port), devices), edge, load)
        async with load.running():
            for _ in range(kills):
                async with host.born():
                    await asyncio.sleep(chance.uniform(0, LONGEST_S))
            async with host.born() as first:
                await load.end()
                await host.until_stored(lambda: load.sent - first)
        found = await host.stored()
    missing = set(range(load.sent)) - found.keys()
    cuts = sum(number - 1 not in missing for number in missing)
    print(f"\n{kills} kills, {load.sent:,} sent, of them {len(load.held):,} held; {len(found):,} in the journal")
    assert found.keys() <= set(range(load.sent)) and set(found.values()) == {1}
    assert not missing & load.held and cuts <= kills, f"lost in {cuts} runs: {sorted(missing)}"


class Device:
    """The edge node's first device."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    @property
    def heard(self) -> int:
        return self._edge.count("told")

    @property
    def done(self) -> list[int]:
        return [told["Control/Power"] for told in self._edge.acts]

    async def behave(self, behaviour: Behaviour) -> None:
        await self._edge.do("behave", behaviour=behaviour)


async def amid_commands(folder: Path, kills: int) -> None:
    """A host that is back asks for births and sends again what has no answer; the device knows what it has done."""
    need_sparkplug_client()
    async with (
        mosquitto(folder / "broker", ACCOUNTS) as broker,
        Edge.started(broker.port, folder / "edge.log", devices=DEVICES) as edge,
    ):
        credential = f"{GROUP}/{NODE}/{DEVICES[0]}"
        start = partial(CommandingGateway.started, folder, "sparkplug", section(broker.port), credential)
        await kills_amid_commands(Device(edge), start, kills, random.Random(told_seed()))


@pytest.mark.timeout(600)
async def test_a_few_kills_amid_commands(tmp_path: Path) -> None:
    await amid_commands(tmp_path, 2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills_amid_commands(tmp_path: Path) -> None:
    await amid_commands(tmp_path, SOAK_KILLS)


@pytest.mark.timeout(600)
async def test_a_few_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, CI_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, SOAK_KILLS)
