"""Follows the ledger's events and keeps tables of what they tell: a whole block and its position in one transaction."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from flexrelay.ledger.port import Checkpoint, Ledger, LedgerError, TxEvents, Validation
from flexrelay.projections.catalogue import PROJECTORS, by_event
from flexrelay.projections.projector import Event, ProjectionFailed, Projector, Scope
from flexrelay.projections.schema import TABLES
from flexrelay.store import Store, StoreUnavailable
from flexrelay_schemas.canonical import canonical, parse

logger = logging.getLogger(__name__)

RETRY_S: Final = 0.5

Listener = Callable[[Sequence[Event]], None]
"""Called on the event loop with a block's events, at least once and in the chain's order."""


class Projections:
    """Async context manager: follows while it is open. One tenant's tables in a store with component PROJECTIONS.

    `listeners` hear a block as soon as it has arrived, before it is stored (what must take effect at once); `readers`
    hear it when the tables hold it (what reads the tables then).

    Raises ProjectionFailed out of the `async with` when an event cannot be projected.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        tenant: str,
        *,
        projectors: Sequence[Projector] = PROJECTORS,
        listeners: Sequence[Listener] = (),
        readers: Sequence[Listener] = (),
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._tenant = tenant
        self._handlers = by_event(projectors)
        self._listeners = tuple(listeners)
        self._readers = tuple(readers)
        self._group: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None
        self._block = -1
        self._moved = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._block = (await self.checkpoint()).block
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self._run(), name="projections")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None and self._task is not None
        self._task.cancel()
        # the body's own exception goes on as it is; a cancellation is the group's to sort out
        mine = (kind, value, trace) if kind is asyncio.CancelledError else (None, None, None)
        await self._group.__aexit__(*mine)

    @property
    def block(self) -> int:
        """The last block that is in the tables, -1 for none."""
        return self._block

    async def reached(self, block: int) -> None:
        """Wait until the tables hold this block (one that has at least one transaction)."""
        while self._block < block:
            await self._moved.wait()

    async def checkpoint(self) -> Checkpoint:
        query = "SELECT block, tx_id FROM projection_checkpoint WHERE tenant = ?"
        row = await self._store.read(lambda connection: connection.execute(query, (self._tenant,)).fetchone())
        return Checkpoint(*row) if row else Checkpoint()

    async def rebuild(self) -> None:
        """Empty this tenant's tables: following begins again at block 0. Only while it is not open."""
        if self._task is not None and not self._task.done():
            raise RuntimeError("projections are rebuilt while they are closed")

        def work(connection: sqlite3.Connection) -> None:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table} WHERE tenant = ?", (self._tenant,))  # noqa: S608

        await self._store.write(work)

    async def dump(self) -> bytes:
        """All rows of this tenant in key order, one canonical JSON list a line: equal after every rebuild."""
        return await self._store.read(lambda connection: _dump(connection, self._tenant))

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(await self.checkpoint())
            except (LedgerError, StoreUnavailable) as error:
                logger.warning("projections of %s: %s; trying again", self._tenant, error)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, checkpoint: Checkpoint) -> None:
        block: list[TxEvents] = []
        async for tx in self._ledger.events(checkpoint):
            if tx.block <= checkpoint.block:
                continue  # delivery is at least once, and a block is applied as a whole
            if all(tx.tx_id != known.tx_id or tx.validation is not known.validation for known in block):
                block.append(tx)
            if tx.last_in_block:
                await self._apply(block)
                checkpoint, block = tx.checkpoint, []

    async def _apply(self, block: Sequence[TxEvents]) -> None:
        arrived = [
            Event(0, tx.block, tx.tx_id, tx.timestamp, event.name, _payload(event.payload))
            for tx in block
            if tx.validation is Validation.VALID
            for event in tx.events
        ]
        for listener in self._listeners:
            listener(arrived)
        last = block[-1].checkpoint
        await self._store.write(lambda connection: self._store_block(connection, arrived, last))
        self._block = last.block
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        for reader in self._readers:
            reader(arrived)

    def _store_block(self, connection: sqlite3.Connection, arrived: Sequence[Event], last: Checkpoint) -> None:
        scope = Scope(connection, self._tenant)
        query = "SELECT sequence FROM projection_checkpoint WHERE tenant = ?"
        row = connection.execute(query, (self._tenant,)).fetchone()
        sequence = row[0] if row else 0
        for found in arrived:
            sequence += 1
            event = Event(sequence, found.block, found.tx_id, found.at, found.name, found.payload)
            connection.execute(
                "INSERT INTO event (tenant, sequence, block, tx_id, at, name, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (self._tenant, sequence, event.block, event.tx_id, event.at, event.name, canonical(event.payload)),
            )
            for handler in self._handlers.get(event.name, ()):
                try:
                    handler(scope, event)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise ProjectionFailed(event, error) from error
        connection.execute(
            "INSERT INTO projection_checkpoint (tenant, block, tx_id, sequence) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (tenant) DO UPDATE SET block = excluded.block, tx_id = excluded.tx_id, "
            "sequence = excluded.sequence",
            (self._tenant, last.block, last.tx_id, sequence),
        )


def _payload(data: bytes) -> dict[str, object]:
    value = parse(data)
    return value if isinstance(value, dict) else {"value": value}


def _dump(connection: sqlite3.Connection, tenant: str) -> bytes:
    lines: list[bytes] = []
    for table, key in TABLES.items():
        query = f"SELECT * FROM {table} WHERE tenant = ? ORDER BY {', '.join(key)}"  # noqa: S608
        for row in connection.execute(query, (tenant,)):
            values = [value.decode() if isinstance(value, bytes) else value for value in row]
            lines.append(canonical([table, *values]))
    return b"\n".join(lines)
