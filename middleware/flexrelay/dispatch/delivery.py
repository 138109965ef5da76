"""Delivery proof: a consumer of the journal that ties readings to the orders that they show the delivery of.

A reading counts when its device is watched for the order and it was observed in the delivery period, ends included
(energy is the difference of the registers at both ends). A commanded device's own reading that shows that it does what
it was told confirms the command. Links, confirmations and position are stored in one transaction.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from typing import Final

from flexrelay.dispatch.plan import DispatchOrder
from flexrelay.dispatch.records import WATCH, Reading, add_step, read_commands
from flexrelay.journal.port import Entry, Journal, JournalUnavailable
from flexrelay.store import Store, StoreUnavailable
from flexrelay_sdk import CommandState
from flexrelay_sdk.vocabulary import confirms

logger = logging.getLogger(__name__)

CONSUMER: Final = "dispatch"
BATCH: Final = 2_000
IDLE_S: Final = 0.2
RETRY_S: Final = 1.0


class Delivery:
    """One tenant's links from orders to readings, in a store with component DISPATCH."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant

    async def run(self, journal: Journal) -> None:
        """Consume the journal until cancelled; where nothing can be read or stored now, it is tried again."""
        while True:
            try:
                await self._follow(journal)
            except (JournalUnavailable, StoreUnavailable) as error:
                logger.warning("delivery links of %s cannot be stored: %s; trying again", self._tenant, error)
                await asyncio.sleep(RETRY_S)

    async def _follow(self, journal: Journal) -> None:
        position = await self.position()
        await journal.acknowledge(CONSUMER, position)
        while True:
            entries = await journal.read(position, BATCH)
            if not entries:
                await asyncio.sleep(IDLE_S)
                continue
            await self.consume(entries)
            position = entries[-1].position
            await journal.acknowledge(CONSUMER, position)

    async def position(self) -> int:
        query = "SELECT position FROM dispatch_position WHERE tenant = ?"
        row = await self._store.read(lambda connection: connection.execute(query, (self._tenant,)).fetchone())
        return int(row[0]) if row else 0

    async def watch(self, order: DispatchOrder, dids: Sequence[str]) -> None:
        """From now on readings of these devices in the order's period are its evidence: for a party that does not
        dispatch it, e.g. the buyer with its meters. (`Dispatcher.accept` does this for its own.)"""
        rows = [(self._tenant, order.order_id, did, order.from_ms, order.until_ms) for did in sorted(set(dids))]
        await self._store.write(lambda connection: connection.executemany(WATCH, rows) and None)

    async def consume(self, entries: Sequence[Entry]) -> None:
        """Store the links of these entries and the position of the last; entries seen before change nothing."""
        await self._store.write(lambda connection: self._consume(connection, entries))

    async def readings(self, order_id: str) -> list[Reading]:
        """The evidence of an order's delivery, in the journal's order."""
        query = (
            "SELECT position, did, observed_at FROM dispatch_reading WHERE tenant = ? AND order_id = ? "
            "ORDER BY position"
        )
        rows = await self._store.read(lambda connection: connection.execute(query, (self._tenant, order_id)).fetchall())
        return [Reading(*row) for row in rows]

    async def orders_of(self, position: int) -> list[str]:
        """The orders that a reading belongs to."""
        query = "SELECT order_id FROM dispatch_reading WHERE tenant = ? AND position = ? ORDER BY order_id"
        rows = await self._store.read(lambda connection: connection.execute(query, (self._tenant, position)).fetchall())
        return [row[0] for row in rows]

    def _consume(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        watched: dict[str, list[tuple[str, int, int]]] = {}
        seen = [measurement.observed_at for entry in entries for measurement in entry.measurements]
        query = (
            "SELECT did, order_id, from_ms, until_ms FROM dispatch_watch "
            "WHERE tenant = ? AND until_ms >= ? AND from_ms <= ?"
        )
        period = (min(seen, default=0), max(seen, default=0))
        for did, order_id, from_ms, until_ms in connection.execute(query, (self._tenant, *period)):
            watched.setdefault(did, []).append((order_id, from_ms, until_ms))
        rows = [
            (self._tenant, order_id, entry.position, entry.did, measurement.observed_at)
            for entry in entries
            for order_id, from_ms, until_ms in watched.get(entry.did, ())
            for measurement in entry.measurements
            if from_ms <= measurement.observed_at <= until_ms
        ]
        connection.executemany(
            "INSERT OR IGNORE INTO dispatch_reading (tenant, order_id, position, did, observed_at) "
            "VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        for order_id, did in sorted({(row[1], row[3]) for row in rows}):
            self._confirm(connection, order_id, did, entries)
        connection.execute(
            "INSERT INTO dispatch_position (tenant, position) VALUES (?, ?) "
            "ON CONFLICT (tenant) DO UPDATE SET position = max(position, excluded.position)",
            (self._tenant, entries[-1].position),
        )

    def _confirm(self, connection: sqlite3.Connection, order_id: str, did: str, entries: Sequence[Entry]) -> None:
        """Commands that went out are confirmed by the first reading that shows them; what the device refused is not.

        One that expired unanswered may have been done all the same, its answer lost: the reading says so. The state
        stays the transport's.
        """
        open_ = read_commands(
            connection,
            self._tenant,
            "order_id = ? AND did = ? AND confirmed_position IS NULL AND state <> ? AND EXISTS (SELECT 1 FROM "
            "dispatch_transition AS step WHERE step.tenant = dispatch_command.tenant AND "
            "step.command_id = dispatch_command.command_id AND step.state = ?)",
            order_id,
            did,
            CommandState.FAILED.value,
            CommandState.SENT.value,
        )
        for record in open_:
            found = next(
                (
                    (entry, measurement.observed_at)
                    for entry in entries
                    if entry.did == did
                    for measurement in entry.measurements
                    if confirms(record.command, measurement.observed_at, measurement.registers)
                ),
                None,
            )
            if found is None:
                continue
            entry, observed_at = found
            connection.execute(
                "UPDATE dispatch_command SET confirmed_position = ?, confirmed_at = ? "
                "WHERE tenant = ? AND command_id = ?",
                (entry.position, observed_at, self._tenant, record.command.command_id),
            )
            add_step(
                connection,
                self._tenant,
                record.command.command_id,
                entry.received_at,
                CommandState.CONFIRMED,
                f"reading at journal position {entry.position}",
            )
