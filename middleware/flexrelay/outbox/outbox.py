"""The outbox: signed intents that must reach exactly one end, on disk before anything is tried.

Writers call `add` (or `add_in` inside a transaction of their own, so that their effects and the intent stand or fall
together). The relay moves the entries; every move is recorded with its time.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from flexrelay.ledger.port import Checkpoint, Prepared, Validation
from flexrelay.outbox import rows
from flexrelay.outbox.entry import (
    Attempt,
    CommittedIntent,
    Entry,
    ExpiredIntent,
    OutboxId,
    Outcome,
    RefusedIntent,
    State,
    Transition,
    outcome_of,
)
from flexrelay.store import Store
from flexrelay_schemas.canonical import CanonicalError, parse
from flexrelay_schemas.intent import Intent, SignedIntent
from flexrelay_sdk.clock import wall_ms

CAPACITY: Final = 10_000
"""Open entries that an outbox holds by default."""

_ASK_AGAIN_S: Final = 1.0
"""Another process may carry the entry: whoever waits reads the store this often."""


class OutboxFull(Exception):
    """As many entries are open as the outbox may hold: let the relay catch up, then add again."""


class IntentClash(Exception):
    """The same actor and intent id is there with other bytes: give the new intent an id of its own."""


class BadIntent(ValueError):
    """The bytes are not a signed intent."""


@dataclass(frozen=True, slots=True)
class Options:
    """How an entry is carried. `ordering_key` "" = no order with others; `gate` in wall-clock UTC ms."""

    transient: Mapping[str, bytes] = field(default_factory=dict)
    endorsing_orgs: tuple[str, ...] = ()
    ordering_key: str = ""
    correlation_id: str = ""
    gate: int | None = None


class Outbox:
    """One tenant's outbox in a store that has the component OUTBOX."""

    def __init__(
        self, store: Store, tenant: str, *, capacity: int = CAPACITY, clock: Callable[[], int] = wall_ms
    ) -> None:
        self.tenant = tenant
        self.capacity = capacity
        self.clock = clock
        self._store = store
        self._waiting: dict[int, list[asyncio.Future[Outcome]]] = {}
        self._wake: list[Callable[[], None]] = []
        self._added = False
        store.on_commit(self._committed)

    # --- for writers ---

    async def add(
        self,
        intent: bytes,
        *,
        transient: Mapping[str, bytes] | None = None,
        endorsing_orgs: Sequence[str] = (),
        ordering_key: str = "",
        correlation_id: str = "",
        gate: int | None = None,
    ) -> OutboxId:
        """Store a signed intent durably; the same intent again gives the same id.

        Raises BadIntent, IntentClash, OutboxFull, StoreUnavailable; then nothing is stored.
        """
        options = Options(dict(transient or {}), tuple(endorsing_orgs), ordering_key, correlation_id, gate)
        return await self._store.write(lambda connection: self.add_in(connection, intent, options))

    def add_in(self, connection: sqlite3.Connection, intent: bytes, options: Options = Options()) -> OutboxId:
        """`add` inside the caller's transaction on a connection to the same file (e.g. in `Store.write`)."""
        content = _decode(intent)
        known = rows.find_entry(connection, self.tenant, content.actor, content.intent_id)
        if known is not None:
            if known.intent != intent:
                raise IntentClash(
                    f"intent {content.intent_id} of {content.actor} is in the outbox as entry {known.id} with other "
                    "bytes; give the new one an id of its own"
                )
            return known.id
        count = "SELECT count(*) FROM outbox_entry WHERE tenant = ? AND open = 1"
        if connection.execute(count, (self.tenant,)).fetchone()[0] >= self.capacity:
            raise OutboxFull(f"{self.capacity} entries are open in the outbox of {self.tenant}; add again later")
        now = self.clock()
        cursor = connection.execute(
            "INSERT INTO outbox_entry (tenant, actor, intent_id, function, intent, transient, endorsing_orgs, "
            "ordering_key, correlation_id, deadline, gate, state, open, added_at, changed_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
            (
                self.tenant,
                content.actor,
                content.intent_id,
                content.function,
                intent,
                rows.encode_transient(options.transient),
                json.dumps(list(options.endorsing_orgs)),
                options.ordering_key,
                options.correlation_id,
                content.deadline,
                options.gate,
                State.PENDING.value,
                now,
                now,
            ),
        )
        assert cursor.lastrowid is not None
        entry = OutboxId(cursor.lastrowid)
        rows.add_transition(connection, self.tenant, entry, now, State.PENDING, "", "")
        self._added = True
        return entry

    async def outcome(self, entry: OutboxId) -> Outcome | None:
        """How the entry ended; None while it is open. Raises KeyError."""
        return outcome_of(await self.entry(entry))

    async def wait(self, entry: OutboxId) -> Outcome:
        """Wait for the end; at once when this object's relay records it, else within a second. Raises KeyError."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(entry, [])
        waiting.append(future)
        try:
            while (known := await self.outcome(entry)) is None:
                done, _ = await asyncio.wait([future], timeout=_ASK_AGAIN_S)
                if done:
                    return future.result()
            return known
        finally:
            waiting.remove(future)
            if not waiting and self._waiting.get(entry) is waiting:
                del self._waiting[entry]

    # --- for people and for the relay ---

    async def entry(self, entry: OutboxId) -> Entry:
        """Raises KeyError."""
        found = await self._store.read(lambda connection: rows.read_entry(connection, self.tenant, entry))
        if found is None:
            raise KeyError(f"no entry {entry} in the outbox of {self.tenant}")
        return found

    async def find(self, actor: str, intent_id: str) -> Entry | None:
        """The entry of an actor's intent id, None when it is not in the outbox."""
        return await self._store.read(lambda connection: rows.find_entry(connection, self.tenant, actor, intent_id))

    async def by_correlation(self, correlation_id: str) -> list[Entry]:
        return await self._store.read(
            lambda connection: rows.list_entries(connection, self.tenant, "correlation_id = ?", correlation_id)
        )

    async def lapsed(self, function: str) -> list[str]:
        """Correlation ids of whose intents of this function every one has expired: nothing of them is under way."""
        query = (
            "SELECT DISTINCT correlation_id FROM outbox_entry e WHERE tenant = ? AND function = ? "
            "AND state = 'expired' AND NOT EXISTS (SELECT 1 FROM outbox_entry o WHERE o.tenant = e.tenant "
            "AND o.function = e.function AND o.correlation_id = e.correlation_id AND o.state <> 'expired') "
            "ORDER BY correlation_id"
        )
        values = (self.tenant, function)
        found = await self._store.read(lambda connection: connection.execute(query, values).fetchall())
        return [row[0] for row in found]

    async def open_entries(self) -> list[Entry]:
        """Oldest first."""
        return await self._store.read(lambda connection: rows.list_entries(connection, self.tenant, "open = 1"))

    async def open_keys(self, after: int) -> list[tuple[int, str, int | None]]:
        """(id, ordering key, gate) of the open entries with an id above `after`, oldest first."""
        query = "SELECT id, ordering_key, gate FROM outbox_entry WHERE tenant = ? AND open = 1 AND id > ? ORDER BY id"
        return await self._store.read(lambda connection: connection.execute(query, (self.tenant, after)).fetchall())

    async def counts(self) -> dict[State, int]:
        """Entries by state, for metrics and the CLI."""
        query = "SELECT state, count(*) FROM outbox_entry WHERE tenant = ? GROUP BY state"
        found = await self._store.read(lambda connection: connection.execute(query, (self.tenant,)).fetchall())
        return {State(state): count for state, count in found}

    async def attempts(self, entry: OutboxId) -> list[Attempt]:
        """Its transactions, oldest first."""
        return await self._store.read(lambda connection: rows.read_attempts(connection, self.tenant, entry))

    async def transitions(self, entry: OutboxId) -> list[Transition]:
        return await self._store.read(lambda connection: rows.read_transitions(connection, self.tenant, entry))

    async def purge(self, before: int) -> int:
        """Forget terminal entries that ended before `before` (UTC ms); returns how many. The ledger still refuses a
        second use of their intents."""
        statement = "DELETE FROM outbox_entry WHERE tenant = ? AND open = 0 AND changed_at < ?"
        return await self._store.write(lambda connection: connection.execute(statement, (self.tenant, before)).rowcount)

    # --- for the relay alone ---

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` on the writer's thread after every commit that may hold new entries."""
        self._wake.append(wake)

    async def record_prepared(self, entry: Entry, prepared: Prepared, role: str = "intent") -> None:
        """Keep transaction id and envelope before anything is submitted."""
        state = State.PREPARED if role == "intent" else State.VOIDING
        now = self.clock()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO outbox_transaction (tenant, tx_id, entry, role, envelope, result, prepared_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    self.tenant,
                    prepared.tx_id,
                    entry.id,
                    role,
                    prepared.envelope,
                    json.dumps(prepared.result, sort_keys=True),
                    now,
                ),
            )
            self._move(connection, entry.id, state, now, prepared.tx_id, "" if role == "intent" else "void prepared")

        await self._store.write(work)

    async def record_state(self, entry: Entry, state: State, tx_id: str, detail: str = "") -> None:
        """A step that ends nothing; an entry that has ended stays as it is."""
        assert not state.terminal
        now = self.clock()
        await self._store.write(lambda connection: self._move(connection, entry.id, state, now, tx_id, detail))

    async def record_dead(self, entry: Entry, attempt: Attempt, validation: Validation, block: int, why: str) -> None:
        """A transaction of this entry can never commit: a block holds it as invalid, or it was never ordered
        (`block` -1)."""
        state = State.CONFLICTED if attempt.role == "intent" else State.VOIDING
        now = self.clock()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE outbox_transaction SET validation = ?, block = ?, envelope = x'' "
                "WHERE tenant = ? AND tx_id = ?",
                (validation.value, block, self.tenant, attempt.tx_id),
            )
            self._move(connection, entry.id, state, now, attempt.tx_id, why)

        await self._store.write(work)

    async def conclude(self, entry: Entry, outcome: Outcome) -> Outcome:
        """Record the end; the first one counts, and that one is returned. The secrets of the entry are dropped."""
        now = self.clock()
        recorded = await self._store.write(lambda connection: self._conclude(connection, entry.id, outcome, now))
        for future in self._waiting.pop(entry.id, []):
            if not future.done():
                future.set_result(recorded)
        return recorded

    async def checkpoint(self) -> Checkpoint:
        """How far the relay has read the ledger's events."""
        query = "SELECT block, tx_id FROM outbox_checkpoint WHERE tenant = ?"
        row = await self._store.read(lambda connection: connection.execute(query, (self.tenant,)).fetchone())
        return Checkpoint(*row) if row else Checkpoint()

    async def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        statement = (
            "INSERT INTO outbox_checkpoint (tenant, block, tx_id) VALUES (?, ?, ?) "
            "ON CONFLICT (tenant) DO UPDATE SET block = excluded.block, tx_id = excluded.tx_id"
        )
        values = (self.tenant, checkpoint.block, checkpoint.tx_id)
        await self._store.write(lambda connection: connection.execute(statement, values) and None)

    def _committed(self) -> None:
        if self._added:
            self._added = False
            for wake in self._wake:
                wake()

    def _move(
        self, connection: sqlite3.Connection, entry: int, state: State, now: int, tx_id: str, detail: str
    ) -> bool:
        moved = connection.execute(
            "UPDATE outbox_entry SET state = ?, tx_id = ?, changed_at = ?, open = ? "
            "WHERE tenant = ? AND id = ? AND open = 1",
            (state.value, tx_id, now, 0 if state.terminal else 1, self.tenant, entry),
        ).rowcount
        if moved:
            rows.add_transition(connection, self.tenant, entry, now, state, tx_id, detail)
        return bool(moved)

    def _conclude(self, connection: sqlite3.Connection, entry: int, outcome: Outcome, now: int) -> Outcome:
        values = _columns(outcome)
        if self._move(connection, entry, _state(outcome), now, values["tx_id"], values["code"]):
            connection.execute(
                "UPDATE outbox_entry SET block = :block, result = :result, code = :code, message = :message, "
                "field = :field, transient = '{}' WHERE tenant = :tenant AND id = :id",
                {**values, "tenant": self.tenant, "id": entry},
            )
            connection.execute(
                "UPDATE outbox_transaction SET envelope = x'' WHERE tenant = ? AND entry = ?", (self.tenant, entry)
            )
            connection.execute(
                "UPDATE outbox_transaction SET validation = ?, block = ? WHERE tenant = ? AND tx_id = ?",
                (Validation.VALID.value, values["block"], self.tenant, values["tx_id"]),
            )
            return outcome
        found = rows.read_entry(connection, self.tenant, entry)
        assert found is not None
        ended = outcome_of(found)
        assert ended is not None
        return ended


def _state(outcome: Outcome) -> State:
    match outcome:
        case CommittedIntent():
            return State.COMMITTED
        case RefusedIntent():
            return State.REFUSED
        case ExpiredIntent():
            return State.EXPIRED


def _columns(outcome: Outcome) -> dict[str, Any]:
    columns: dict[str, Any] = {"tx_id": "", "block": None, "result": None, "code": "", "message": "", "field": ""}
    match outcome:
        case CommittedIntent(tx_id, block, result):
            columns |= {"tx_id": tx_id, "block": block, "result": json.dumps(dict(result), sort_keys=True)}
        case RefusedIntent(code, message, field):
            columns |= {"code": code, "message": message, "field": field}
        case ExpiredIntent(tx_id):
            columns |= {"tx_id": tx_id}
    return columns


def _decode(data: bytes) -> Intent:
    try:
        return SignedIntent.model_validate(parse(data)).intent
    except (CanonicalError, ValidationError) as error:
        raise BadIntent(f"not a signed intent: {error}") from None
