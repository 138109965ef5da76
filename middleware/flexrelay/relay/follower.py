"""Outcomes from the ledger's event stream: one subscription for all transactions in flight."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flexrelay.ledger.port import Ledger, LedgerError, TxEvents
from flexrelay.outbox import Outbox
from flexrelay.store import StoreUnavailable

logger = logging.getLogger(__name__)


class Follower:
    """Reads events from the outbox's checkpoint and wakes whoever watches a transaction.

    The checkpoint is kept at most once a second and may lie behind what was consumed: delivery is at least once, and a
    restarted relay asks the status of everything in flight before it does anything else.
    """

    def __init__(self, ledger: Ledger, outbox: Outbox, *, keep_every_s: float = 1.0, retry_s: float = 0.5) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._keep_every_s = keep_every_s
        self._retry_s = retry_s
        self._watched: dict[str, asyncio.Future[TxEvents]] = {}

    @contextmanager
    def watch(self, tx_id: str) -> Iterator["asyncio.Future[TxEvents]"]:
        """A future for the transaction's first appearance in a block from now on."""
        future: asyncio.Future[TxEvents] = asyncio.get_running_loop().create_future()
        self._watched[tx_id] = future
        try:
            yield future
        finally:
            del self._watched[tx_id]

    async def run(self) -> None:
        """Until cancelled; a broken stream is opened again."""
        checkpoint = await self._outbox.checkpoint()
        kept = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async for tx in self._ledger.events(checkpoint):
                    future = self._watched.get(tx.tx_id)
                    if future is not None and not future.done():
                        future.set_result(tx)
                    checkpoint = tx.checkpoint
                    if tx.last_in_block and loop.time() - kept > self._keep_every_s:
                        kept = loop.time()
                        await self._outbox.record_checkpoint(checkpoint)
            except (LedgerError, StoreUnavailable) as error:
                logger.warning("following the ledger's events broke: %s; opening the stream again", error)
            await asyncio.sleep(self._retry_s)
