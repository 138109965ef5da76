"""A network with the real contracts, its gateway's folder, and a load that runs while something is done to it."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

from support.fabric import CHANNEL
from support.fabric_audit import Report, audit
from support.fabric_chain import FabricChain
from support.fabric_load import STORE, Load

from flexrelay.ledger.fabric import FabricLedger
from flexrelay.network import Network
from flexrelay.outbox import OUTBOX, Outbox
from flexrelay.relay import Relay, RelayOptions
from flexrelay.store import Store

PATIENCE_S = 150.0
"""The machine may be busy with other things; nothing here is about speed but the pauses that are printed."""

NEAR_BLOCKS = 3


@dataclass
class Running:
    """A load under way."""

    load: Load
    ledger: FabricLedger
    outbox: Outbox
    relay: Relay

    async def commits(self, count: int) -> None:
        """Until so many further commits are known."""
        wanted = len(self.load.commits) + count
        async with asyncio.timeout(PATIENCE_S):
            while len(self.load.commits) < wanted:  # noqa: ASYNC110 (the load counts, it tells nobody)
                await asyncio.sleep(0.02)

    def pause_s(self, since: float) -> float:
        """The longest time without a commit from just before `since` (time.monotonic()) on."""
        times = [*(when for when in self.load.commits if when > since - 1), time.monotonic()]
        return max((b - a for a, b in pairwise(times) if b > since), default=0.0)


@dataclass
class Rig:
    """`native` is the network; its blocking calls run in threads."""

    native: Network
    chain: FabricChain

    async def kill(self, name: str) -> float:
        """SIGKILL; when it was sent (time.monotonic())."""
        sent = time.monotonic()
        await asyncio.to_thread(self.native.kill, name)
        return sent

    async def start(self, name: str) -> None:
        await asyncio.to_thread(self.native.start, name)

    @asynccontextmanager
    async def loaded(
        self, seed: int, *, width: int = 80, in_flight: int = 64, waiting: int = 0
    ) -> AsyncIterator[Running]:
        """A load runs for the block; then it ends, with an end for every intent. The relay begins when so many wait."""
        enough = asyncio.Event()
        options = RelayOptions(in_flight=in_flight)
        async with (
            self.chain.connect(in_flight) as ledger,
            Store(self.chain.folder / STORE, [OUTBOX]) as store,
        ):
            outbox = Outbox(store, ledger.org)
            load = Load(self.chain, outbox, seed, width=width)
            task = asyncio.create_task(load.run(enough.is_set))
            try:
                while load.added < waiting:  # noqa: ASYNC110 (the load counts, it tells nobody)
                    await asyncio.sleep(0.02)
                async with Relay(ledger, outbox, sign=self.chain.sign_void, options=options) as relay:
                    yield Running(load, ledger, outbox, relay)
                    enough.set()
                    await asyncio.wait_for(task, PATIENCE_S)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def audited(self, what: str) -> Report:
        """Every end of every load so far against the chain; told."""
        report = await audit(self.chain, self.native)
        print(f"\n{what}: {report}")
        return report

    async def leader(self) -> str:
        """The orderer that leads the channel, once all orderers run, agree on it and have the same blocks: one that has
        just come back is a fault more."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await asyncio.to_thread(self._leader)
                if found and await asyncio.to_thread(self._level):
                    return found
                await asyncio.sleep(0.2)

    def _leader(self) -> str:
        names = self.native.spec.orderer_names
        if self.native.spec.consensus == "bft":
            pattern = rf'^consensus_smartbft_view_leader_id{{channel="{CHANNEL}"}} (\d+)'
            votes = [re.search(pattern, self._metrics(name), re.M) for name in names]
            led = {f"orderer{int(vote[1]) - 1}" for vote in votes if vote}
            return led.pop() if len(led) == 1 and all(votes) else ""
        leads = rf'^consensus_etcdraft_is_leader{{channel="{CHANNEL}"}} 1'
        led = {name for name in names if re.search(leads, self._metrics(name), re.M)}
        return led.pop() if len(led) == 1 else ""

    def _level(self) -> bool:
        """Whether each has by now what the others had a moment ago: blocks come while they are asked."""
        before, after = self._heights(), self._heights()
        return min(after) >= max(before) - NEAR_BLOCKS

    def _heights(self) -> list[int]:
        return [item.heights.get(CHANNEL, 0) for item in self.native.status() if item.kind == "orderer"]

    def _metrics(self, name: str) -> str:
        port = self.native.state.ports[f"{name}.operations"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""
