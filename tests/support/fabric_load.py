"""A load of intents through outbox and relay on Fabric: always some open, until it is enough; and the process for it.

`GatewayOrders` run under `support.gateway.Nursery`: a gateway's writing path that is made to be killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexrelay.ledger.fabric import FabricLedger
from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox, Outcome
from flexrelay.relay import Relay, RelayOptions
from flexrelay.store import Store
from support.fabric_chain import FabricChain, payment
from support.gateway import Marks, marked
from support.guardian import end_with

STORE = "store.db"
TOLD = "told"
ENOUGH = "enough"

PLACES: tuple[tuple[Any, str, str, str], ...] = (
    (Outbox, "add_in", "outbox: being added", "outbox: added, not committed"),
    (FabricLedger, "prepare", "ledger: being endorsed", "ledger: endorsed"),
    (Outbox, "record_prepared", "outbox: endorsed, not kept", "outbox: envelope kept"),
    (FabricLedger, "submit", "ledger: being submitted", "ledger: submitted"),
    (FabricLedger, "status", "ledger: being asked", "ledger: asked"),
    (Outbox, "record_dead", "outbox: conflict not recorded", "outbox: conflict recorded"),
    (Outbox, "conclude", "outbox: end not recorded", "outbox: end recorded"),
    (Outbox, "record_checkpoint", "outbox: checkpoint being kept", "outbox: checkpoint kept"),
)
STARTING, CONNECTED = "starting", "connected"
POINTS = (STARTING, CONNECTED, *(point for _, _, *points in PLACES for point in points))


class Load:
    """Intents 0, 1, … of a seed; at most `width` are open at once. One that was added before a kill is taken up."""

    def __init__(
        self,
        chain: FabricChain,
        outbox: Outbox,
        seed: int,
        *,
        width: int = 80,
        told: Callable[[str, Outcome], None] | None = None,
    ) -> None:
        self._chain = chain
        self._outbox = outbox
        self._seed = seed
        self._room = asyncio.Semaphore(width)
        self._told = told
        self._waiting: set[asyncio.Task[None]] = set()
        self.added = 0
        self.ends: Counter[str] = Counter()
        self.commits: list[float] = []
        """When commits were learned, time.monotonic()."""

    async def run(self, enough: Callable[[], bool]) -> None:
        """Add until it is enough, then wait for every end, of what was added before this process too."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._room.acquire()
                wanted = payment(self._seed, self.added)
                found = await self._outbox.find(self._chain.operator.did, wanted.name)
                if found is None and enough():
                    break
                intent = found.intent if found is not None else self._chain.signed(wanted)
                entry = await self._outbox.add(intent, ordering_key=wanted.key)
                group.create_task(self._wait(wanted.name, entry))
                self.added += 1

    async def _wait(self, name: str, entry: Any) -> None:
        outcome = await self._outbox.wait(entry)
        self.ends[type(outcome).__name__] += 1
        if isinstance(outcome, CommittedIntent):
            self.commits.append(time.monotonic())
        if self._told is not None:
            self._told(name, outcome)
        self._room.release()


@dataclass(frozen=True)
class GatewayOrders:
    """What the process is to do. `kill_at` a point after `skip` passes, `delay_us` later; "" runs on. It ends by itself
    when the folder says that it is enough and everything has ended, and when the process `owner` is gone."""

    folder: Path
    seed: int
    owner: int
    kill_at: str = ""
    skip: int = 0
    delay_us: int = 0

    def main(self) -> None:
        end_with(self.owner)
        logging.basicConfig(filename=self.folder / "gateway.log", level=logging.WARNING, force=True)
        marks = Marks(self.folder / "marks", self, POINTS)
        marks.at(STARTING)
        for owner, name, before, after in PLACES:
            setattr(owner, name, marked(getattr(owner, name), marks, before, after))
        try:
            asyncio.run(self._serve(marks))
        except BaseException:
            logging.exception("the gateway ended by itself")
            raise
        os._exit(0)

    async def _serve(self, marks: Marks) -> None:
        chain = FabricChain.at(self.folder)
        async with chain.connect() as ledger, Store(self.folder / STORE, [OUTBOX]) as store:
            marks.at(CONNECTED)
            outbox = Outbox(store, ledger.org)
            with (self.folder / TOLD).open("a") as told:

                def tell(name: str, outcome: Outcome) -> None:
                    told.write(f"{name} {type(outcome).__name__} {getattr(outcome, 'tx_id', '')}\n")
                    told.flush()

                async with Relay(ledger, outbox, sign=chain.sign_void, options=RelayOptions(drain_s=0.5)):
                    await Load(chain, outbox, self.seed, told=tell).run((self.folder / ENOUGH).exists)


def hit(ended: int) -> bool:
    """Whether a process ended by the kill that was meant for it."""
    return ended == -signal.SIGKILL
