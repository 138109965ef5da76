"""A network with the real contracts, its gateway's folder, and a load that runs while something is done to it."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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

PATIENCE_S = 300.0
"""The machine may be busy with other things; nothing here is about speed but the pauses that are printed."""

NEAR_BLOCKS = 3
QUORUM = 3
"""Of four BFT orderers."""

STANDS_S = 15.0
"""An orderer of a BFT channel that has no new block for so long while others have some has come to a stand for good:
SmartBFT can, when it synchronises (docs/fabric.md). Operators start it again, and so do these tests."""


@dataclass
class Running:
    """A load under way."""

    load: Load
    ledger: FabricLedger
    outbox: Outbox
    relay: Relay
    rig: Rig

    async def commits(self, count: int) -> None:
        """Until so many further commits are known. Where nothing goes on, orderers that stand are started again."""
        wanted = len(self.load.commits) + count
        looked = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while len(self.load.commits) < wanted:
                await asyncio.sleep(0.02)
                if time.monotonic() > max([looked, *self.load.commits[-1:]]) + 2 * STANDS_S:
                    looked = time.monotonic()
                    await self.rig.start_standing(stopped=True)

    def pause_s(self, since: float) -> float:
        """The longest time without a commit from just before `since` (time.monotonic()) on."""
        times = [*(when for when in self.load.commits if when > since - 1), time.monotonic()]
        return max((b - a for a, b in pairwise(times) if b > since), default=0.0)


@dataclass
class Rig:
    """`native` is the network; its blocking calls run in threads."""

    native: Network
    chain: FabricChain
    stood: list[str] = field(default_factory=list)
    """Orderers that had come to a stand and were started again."""

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
                    yield Running(load, ledger, outbox, relay, self)
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
        looked = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if time.monotonic() > looked + STANDS_S:
                    looked = time.monotonic()
                    await self.start_standing()
                found = await asyncio.to_thread(self._leader)
                if found and await asyncio.to_thread(self._level):
                    return found
                await asyncio.sleep(0.2)

    async def led(self) -> str:
        """The orderer that a quorum of the BFT orderers follow, whatever the others do."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                votes = Counter((await asyncio.to_thread(self._votes)).values())
                if votes and votes.most_common(1)[0][1] >= QUORUM:
                    return f"orderer{votes.most_common(1)[0][0] - 1}"
                await asyncio.sleep(0.1)

    async def start_standing(self, *, stopped: bool = False) -> None:
        """Start the BFT orderers again that stand while others go on; when the whole channel has `stopped`, those with
        less blocks than others, or all."""
        if self.native.spec.consensus != "bft":
            return
        before = await asyncio.to_thread(self._blocks)
        await asyncio.sleep(1 if stopped else STANDS_S / 2)
        after = await asyncio.to_thread(self._blocks)
        top = max(after.values(), default=0)
        stand = [name for name in sorted(before.keys() & after.keys()) if after[name] == before[name]]
        lag = [name for name in stand if after[name] < top - (0 if stopped else 2 * NEAR_BLOCKS)]
        for name in lag or (stand if stopped else []):
            print(f"\n{name} stands at block {after[name]} of {top}: started again", flush=True)
            self.stood.append(name)
            await asyncio.to_thread(self.native.restart, name)

    def _leader(self) -> str:
        names = self.native.spec.orderer_names
        if self.native.spec.consensus == "bft":
            votes = self._votes()
            led = {f"orderer{vote - 1}" for vote in votes.values()}
            return led.pop() if len(led) == 1 and len(votes) == len(names) else ""
        leads = rf'^consensus_etcdraft_is_leader{{channel="{CHANNEL}"}} 1'
        led = {name for name in names if re.search(leads, self._metrics(name), re.M)}
        return led.pop() if len(led) == 1 else ""

    def _votes(self) -> dict[str, int]:
        """BFT orderer → number of the orderer that it follows; of those that answer."""
        pattern = rf'^consensus_smartbft_view_leader_id{{channel="{CHANNEL}"}} (\d+)'
        found = {name: re.search(pattern, self._metrics(name), re.M) for name in self.native.spec.orderer_names}
        return {name: int(vote[1]) for name, vote in found.items() if vote}

    def _level(self) -> bool:
        """Whether each has by now what the others had a moment ago: blocks come while they are asked."""
        before, after = self._heights(), self._heights()
        return min(after) >= max(before) - NEAR_BLOCKS

    def _blocks(self) -> dict[str, int]:
        """Orderer → blocks; of those that answer."""
        return {
            item.name: item.heights[CHANNEL]
            for item in self.native.status()
            if item.kind == "orderer" and CHANNEL in item.heights
        }

    def _heights(self) -> list[int]:
        return [item.heights.get(CHANNEL, 0) for item in self.native.status() if item.kind == "orderer"]

    def _metrics(self, name: str) -> str:
        port = self.native.state.ports[f"{name}.operations"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""
