"""Rows of the outbox's tables to values and back. Every statement names the tenant."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from flexrelay.ledger.port import Validation
from flexrelay.outbox.entry import Attempt, Entry, OutboxId, State, Transition
from flexrelay_schemas.encoding import b64u, b64u_decode

_COLUMNS: Final = (
    "id, actor, intent_id, function, intent, transient, endorsing_orgs, ordering_key, correlation_id, deadline, gate, "
    "state, tx_id, block, result, code, message, field, added_at, changed_at"
)


def encode_transient(transient: Mapping[str, bytes]) -> str:
    return json.dumps({name: b64u(value) for name, value in transient.items()}, sort_keys=True)


def read_entry(connection: sqlite3.Connection, tenant: str, entry: int) -> Entry | None:
    query = f"SELECT {_COLUMNS} FROM outbox_entry WHERE tenant = ? AND id = ?"  # noqa: S608 - constant columns
    row = connection.execute(query, (tenant, entry)).fetchone()
    return None if row is None else _entry(row)


def find_entry(connection: sqlite3.Connection, tenant: str, actor: str, intent_id: str) -> Entry | None:
    query = f"SELECT {_COLUMNS} FROM outbox_entry WHERE tenant = ? AND actor = ? AND intent_id = ?"  # noqa: S608
    row = connection.execute(query, (tenant, actor, intent_id)).fetchone()
    return None if row is None else _entry(row)


def list_entries(connection: sqlite3.Connection, tenant: str, where: str, *values: Any) -> list[Entry]:
    """Entries in the order of their ids; `where` is a condition written in this package."""
    query = f"SELECT {_COLUMNS} FROM outbox_entry WHERE tenant = ? AND {where} ORDER BY id"  # noqa: S608
    return [_entry(row) for row in connection.execute(query, (tenant, *values))]


def read_attempts(connection: sqlite3.Connection, tenant: str, entry: int) -> list[Attempt]:
    """All transactions of an entry, oldest first."""
    query = (
        "SELECT tx_id, role, envelope, result, prepared_at, validation, block FROM outbox_transaction "
        "WHERE tenant = ? AND entry = ? ORDER BY prepared_at, tx_id"
    )
    return [
        Attempt(
            tx_id=row[0],
            role=row[1],
            envelope=row[2],
            result=json.loads(row[3]),
            prepared_at=row[4],
            validation=Validation(row[5]) if row[5] else None,
            block=row[6],
        )
        for row in connection.execute(query, (tenant, entry))
    ]


def read_transitions(connection: sqlite3.Connection, tenant: str, entry: int) -> list[Transition]:
    query = "SELECT n, at, state, tx_id, detail FROM outbox_transition WHERE tenant = ? AND entry = ? ORDER BY n"
    rows = connection.execute(query, (tenant, entry))
    return [Transition(n, at, State(state), tx_id, detail) for n, at, state, tx_id, detail in rows]


def add_transition(
    connection: sqlite3.Connection, tenant: str, entry: int, at: int, state: State, tx_id: str, detail: str
) -> None:
    connection.execute(
        "INSERT INTO outbox_transition (tenant, entry, n, at, state, tx_id, detail) SELECT ?, ?, "
        "coalesce(max(n), 0) + 1, ?, ?, ?, ? FROM outbox_transition WHERE tenant = ? AND entry = ?",
        (tenant, entry, at, state.value, tx_id, detail, tenant, entry),
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(
        id=OutboxId(row[0]),
        actor=row[1],
        intent_id=row[2],
        function=row[3],
        intent=row[4],
        transient={name: b64u_decode(value) for name, value in json.loads(row[5]).items()},
        endorsing_orgs=tuple(json.loads(row[6])),
        ordering_key=row[7],
        correlation_id=row[8],
        deadline=row[9],
        gate=row[10],
        state=State(row[11]),
        tx_id=row[12],
        block=row[13],
        result=None if row[14] is None else json.loads(row[14]),
        code=row[15],
        message=row[16],
        field=row[17],
        added_at=row[18],
        changed_at=row[19],
    )
