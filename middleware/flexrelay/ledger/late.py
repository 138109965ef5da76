"""A connection to a ledger that does not answer yet: what asks it is told so at once, what follows it waits."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from flexrelay.ledger.port import Call, Checkpoint, Ledger, LedgerUnavailable, Prepared, TxEvents, TxStatus


class LateLedger:
    """A `Ledger`. `why`: what keeps it away; `arrived` says that it is there."""

    def __init__(self, org: str, why: str) -> None:
        self._org = org
        self._ledger: Ledger | None = None
        self._there = asyncio.Event()
        self.why = why

    def arrived(self, ledger: Ledger) -> None:
        """From now on everything goes to the real one, for good: that one is opened again by nobody but itself."""
        self._ledger = ledger
        self.why = ""
        self._there.set()

    @property
    def org(self) -> str:
        return self._org

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return await self._now.evaluate(function, args)

    async def prepare(self, call: Call) -> Prepared:
        return await self._now.prepare(call)

    async def submit(self, envelope: bytes) -> None:
        await self._now.submit(envelope)

    async def status(self, tx_id: str) -> TxStatus:
        return await self._now.status(tx_id)

    async def events(self, checkpoint: Checkpoint) -> AsyncGenerator[TxEvents, None]:
        await self._there.wait()
        async for item in self._now.events(checkpoint):
            yield item

    @property
    def _now(self) -> Ledger:
        if self._ledger is None:
            raise LedgerUnavailable(f"no ledger has answered {self._org}'s gateway since the start: {self.why}")
        return self._ledger
