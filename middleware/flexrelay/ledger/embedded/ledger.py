"""The embedded ledger and a gateway's connection to it.

Three places work: the event loop (queues, subscribers, and the short jobs: contracts without private data, signatures,
blocks), one engine thread (queries, private data, what comes while it works) and one writer thread (fsync). Envelopes
that wait while a block is written make up the next block. `submit` returns when the envelope's block is on disk (after
its fsync): what was submitted survives kill -9 and power loss.

A slow contract call holds up the other calls and the commits, as it does on a Fabric peer.
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flexrelay.ledger.embedded import folder as place
from flexrelay.ledger.embedded.block import decode_block
from flexrelay.ledger.embedded.blockfile import BlockFile
from flexrelay.ledger.embedded.engine import Accepted, Draft, Engine, Identity, Queries, Transactions
from flexrelay.ledger.embedded.envelope import join
from flexrelay.ledger.embedded.genesis import Genesis
from flexrelay.ledger.embedded.recovery import Recovery, open_folder
from flexrelay.ledger.embedded.views import block_view, bodies_of, transaction_events
from flexrelay.ledger.embedded.worker import Worker
from flexrelay.ledger.port import (
    BlockView,
    Call,
    Checkpoint,
    GatewaySigner,
    LedgerError,
    LedgerUnavailable,
    OutcomeUnknown,
    Prepared,
    Rejected,
    TxEvents,
    TxStatus,
)
from flexrelay_sdk.clock import wall_ms

_LOG = logging.getLogger(__name__)
_MAX_WAITING = 10_000
_RECENT_BLOCKS = 32
_MAX_BLOCK_BYTES = 128_000_000
_CATCH_UP_S = 0.5


class EmbeddedLedger:
    """A ledger in a folder, for development, tests and a single operator. Also a BlockReader.

    Open it with `async with EmbeddedLedger.open(folder, genesis) as ledger`, then `ledger.connect(org, signer)`.
    """

    def __init__(self, engine: Engine, blocks: BlockFile, recovery: Recovery, worker: Worker) -> None:
        self.recovery = recovery
        self._engine = engine
        self._blocks = blocks
        self._worker = worker
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._waiting: deque[tuple[Accepted, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._failed: LedgerError | None = None
        self._behind: Draft | None = None
        self._lag = ""
        self._height: int = engine.state.height
        self._advanced = asyncio.Event()
        self._recent: deque[tuple[int, tuple[TxEvents, ...]]] = deque(maxlen=_RECENT_BLOCKS)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path,
        genesis: Genesis | None = None,
        *,
        transactions: Transactions | None = None,
        queries: Queries | None = None,
        clock: Callable[[], int] = wall_ms,
    ) -> AsyncIterator["EmbeddedLedger"]:
        """Open the ledger in `folder`, or make it from `genesis`. Contracts default to the catalogue.

        Raises LedgerLocked, LedgerCorrupt, GenesisMismatch.
        """
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        if transactions is None or queries is None:
            from flexrelay_contracts import catalogue

            transactions = catalogue.TRANSACTIONS if transactions is None else transactions
            queries = catalogue.QUERIES if queries is None else queries
        lock = place.lock(folder)
        worker = Worker("ledger-engine")
        try:
            opened = await worker.call(open_folder, folder, genesis)
            _tell(folder, opened.recovery)
            try:
                made = partial(Engine, transactions=transactions, queries=queries, clock=clock)
                engine = await worker.call(made, opened.genesis, opened.state, opened.private, opened.secret)
                ledger = cls(engine, opened.blocks, opened.recovery, worker)
                orderer = asyncio.create_task(ledger._order(), name="ledger-orderer")
                try:
                    yield ledger
                finally:
                    await ledger._close(orderer)
            finally:
                await worker.stop(opened.state.close, opened.private.close)
                opened.blocks.close()
        finally:
            if not worker.stopped:
                await worker.stop()
            os.close(lock)

    @property
    def genesis(self) -> Genesis:
        return self._engine.genesis

    @property
    def trouble(self) -> str:
        """Why nothing can be ordered now, "" when it can: no room, or a device that failed."""
        if self._failed is not None:
            return str(self._failed)
        return self._lag

    def connect(self, org: str, signer: GatewaySigner, *, clock: Callable[[], int] | None = None) -> "Connection":
        """The connection of a gateway of `org`; `clock` stamps its transactions. Raises Rejected for a key that the
        genesis does not name."""
        return Connection(self, self._engine.identity(org, signer.public_key), signer, clock or self._engine.clock)

    async def height(self) -> int:
        """How many blocks there are, the genesis included."""
        return self._height

    async def block(self, number: int) -> BlockView:
        """Raises LedgerError for a block that does not exist or is damaged."""
        if not 0 <= number < self._height:
            raise LedgerError(f"there is no block {number}; the ledger has {self._height}")
        return await asyncio.to_thread(lambda: block_view(decode_block(number, self._blocks.read(number))))

    def order(self, accepted: Accepted) -> "asyncio.Future[None]":
        """Done when the envelope's block is on disk."""
        if self._closing:
            raise LedgerUnavailable("the ledger is closing", accepted.tx_id)
        if self._failed is not None:
            raise OutcomeUnknown(str(self._failed), accepted.tx_id)
        if len(self._waiting) >= _MAX_WAITING:
            raise LedgerUnavailable(f"{_MAX_WAITING} envelopes wait for a block; try again later", accepted.tx_id)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((accepted, done))
        self._arrived.set()
        return done

    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        """See the port. A checkpoint that names no transaction stands for the beginning of its block."""
        if checkpoint.block >= self._height:
            raise LedgerError(f"checkpoint: block {checkpoint.block}, but the ledger has only {self._height}")
        number = max(checkpoint.block, 0)
        skip = checkpoint.tx_id if checkpoint.block >= 0 else ""
        while True:
            while number >= self._height:
                if self._closing:
                    raise LedgerUnavailable("the ledger was closed")
                await self._advanced.wait()
            items = await self._events_of(number)
            if skip:
                position = next((i for i, item in enumerate(items) if item.tx_id == skip), None)
                if position is None:
                    raise LedgerError(f"checkpoint: block {number} does not hold the transaction", skip)
                items, skip = items[position + 1 :], ""
            for item in items:
                yield item
            number += 1

    async def _events_of(self, number: int) -> tuple[TxEvents, ...]:
        for recent, items in self._recent:
            if recent == number:
                return items

        def read() -> tuple[TxEvents, ...]:
            block = decode_block(number, self._blocks.read(number))
            return transaction_events(number, bodies_of(block), block.codes)

        return await asyncio.to_thread(read)

    async def _order(self) -> None:
        """Make blocks out of what waits, for ever."""
        cutting = self.genesis.block_cutting
        while not (self._closing and not self._waiting):
            if self._behind is not None and not await self._catch_up(self._behind):
                continue
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            if cutting.timeout_ms:
                await self._fill(cutting.max_messages, cutting.timeout_ms / 1000)
            batch = self._cut(cutting.max_messages)
            try:
                await self._write(batch)
            except LedgerError as error:
                self._lag = str(error)
                _fail(batch, error)
            except Exception as error:
                _LOG.exception("a block could not be made")
                _fail(batch, OutcomeUnknown(f"the ledger failed: {error!r}"))

    def _cut(self, messages: int) -> list[tuple[Accepted, "asyncio.Future[None]"]]:
        """Take the next block's envelopes: at most so many messages and bytes, at least one."""
        batch = [self._waiting.popleft()]
        size = len(batch[0][0].envelope)
        while self._waiting and len(batch) < messages:
            size += len(self._waiting[0][0].envelope)
            if size > _MAX_BLOCK_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _fill(self, messages: int, seconds: float) -> None:
        """Wait until the block is full, or its time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self._waiting) < messages and not self._closing:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _write(self, batch: list[tuple[Accepted, "asyncio.Future[None]"]]) -> None:
        draft = await self._worker.short(self._engine.draft, [accepted for accepted, _ in batch])
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._blocks.append, draft.payload)
        except OutcomeUnknown as error:
            self._failed = error
            raise
        for _, done in batch:
            if not done.done():
                done.set_result(None)
        self._behind = draft
        await self._catch_up(draft)

    async def _catch_up(self, draft: Draft) -> bool:
        """Apply a durable block. While there is no room for it, refuse what waits, and try again after a moment."""
        try:
            await self._worker.short(self._engine.apply, draft)
        except LedgerUnavailable as error:
            self._lag = str(error)
            _LOG.error("%s", error)
            _fail(list(self._waiting), error)
            self._waiting.clear()
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), _CATCH_UP_S)
            return False
        self._behind, self._lag = None, ""
        self._recent.append((draft.number, transaction_events(draft.number, draft.bodies, draft.judgement.validations)))
        self._height = draft.number + 1
        self._wake()
        return True

    def _wake(self) -> None:
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()

    async def _close(self, orderer: "asyncio.Task[None]") -> None:
        """Order what waits, then stop."""
        self._closing = True
        self._arrived.set()
        await orderer
        self._wake()
        self._writer.shutdown()


class Connection:
    """One gateway's connection: the ledger port."""

    def __init__(
        self, ledger: EmbeddedLedger, identity: Identity, signer: GatewaySigner, clock: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._engine = ledger._engine
        self._worker = ledger._worker
        self._identity = identity
        self._signer = signer
        self._clock = clock

    @property
    def org(self) -> str:
        return self._identity.org

    @property
    def identity(self) -> str:
        """The creator's identity as contracts see it: hex SHA-256 of the gateway's public key."""
        return self._identity.creator.identity

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return await self._worker.call(self._engine.evaluate, self._identity, function, args)

    async def prepare(self, call: Call) -> Prepared:
        if self._worker.idle and not call.transient:  # private values wait for the disk
            unsigned = self._engine.simulate(self._identity, call, self._clock())
        else:
            unsigned = await self._worker.call(self._engine.simulate, self._identity, call, self._clock())
        signature = await self._signer.sign(unsigned.message)
        if len(signature) != 64:
            raise Rejected(f"the gateway's signer gave {len(signature)} bytes, not 64", unsigned.tx_id)
        return Prepared(unsigned.tx_id, join(signature, unsigned.attestation, unsigned.body), unsigned.result)

    async def submit(self, envelope: bytes) -> None:
        if self._worker.idle:
            accepted = self._engine.accept(envelope)
        else:
            accepted = await self._worker.call(self._engine.accept, envelope)
        await self._ledger.order(accepted)

    async def status(self, tx_id: str) -> TxStatus:
        return await self._worker.short(self._engine.status, tx_id)

    def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        return self._ledger.events(checkpoint)


def _fail(batch: list[tuple[Accepted, "asyncio.Future[None]"]], error: LedgerError) -> None:
    for accepted, done in batch:
        if not done.done():
            done.set_exception(type(error)(str(error), accepted.tx_id))


def _tell(folder: Path, recovery: Recovery) -> None:
    """What opening had to repair: nothing is lost by either, but somebody should know."""
    if recovery.rebuilt_state:
        _LOG.warning(
            "%s was damaged and has been made again from %s blocks", folder / place.STATE, recovery.replayed_blocks
        )
    if recovery.cut_bytes:
        _LOG.warning(
            "%s ended in a torn block that was never acknowledged: %s bytes cut off",
            folder / place.BLOCKS,
            recovery.cut_bytes,
        )
