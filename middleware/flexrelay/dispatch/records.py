"""Commands and evidence as they are stored."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flexrelay_sdk import Command, CommandState


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The first journalled reading of the device that shows that it does what it was told (`observed_at` in market
    time)."""

    position: int
    observed_at: int


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command with the newest state that its transport told; `reported` are the values that the device answered
    with. `confirmation` is what the meter says, beside the transport's word and never in its place."""

    command: Command
    state: CommandState
    send_at: int
    detail: str
    reported: Mapping[str, int]
    confirmation: Confirmation | None = None

    @property
    def life(self) -> CommandState:
        """Where it stands in the one life of all commands: confirmed when a reading shows it."""
        return self.state if self.confirmation is None else CommandState.CONFIRMED


@dataclass(frozen=True, slots=True)
class CommandStep:
    """A state that a command reached at `at` (wall-clock UTC ms); `n` counts from 1."""

    n: int
    at: int
    state: CommandState
    detail: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A journalled reading that shows delivery: where it stands in this gateway's journal."""

    position: int
    did: str
    observed_at: int


WATCH: Final = "INSERT OR IGNORE INTO dispatch_watch (tenant, order_id, did, from_ms, until_ms) VALUES (?, ?, ?, ?, ?)"

_COLUMNS: Final = (
    "command_id, order_id, did, credential, name, parameters, send_at, expires_at, state, detail, reported, "
    "confirmed_position, confirmed_at"
)


AS_SENT: Final = (
    "(SELECT min(at) FROM dispatch_transition AS step WHERE step.tenant = dispatch_command.tenant AND "
    "step.command_id = dispatch_command.command_id AND step.state = 'sent') NULLS LAST, send_at, "
    "(SELECT accepted_at FROM dispatch_order WHERE dispatch_order.tenant = dispatch_command.tenant AND "
    "dispatch_order.order_id = dispatch_command.order_id), expires_at, command_id"
)
"""The order in which commands were sent first, then that in which the others are to be: of one order the nearest window
first, since some wait for theirs where their places are bounded."""


def read_commands(
    connection: sqlite3.Connection, tenant: str, where: str, *values: Any, order: str = "send_at, command_id"
) -> list[CommandRecord]:
    """`where` and `order` are written in this package."""
    query = f"SELECT {_COLUMNS} FROM dispatch_command WHERE tenant = ? AND {where} ORDER BY {order}"  # noqa: S608
    return [_record(row) for row in connection.execute(query, (tenant, *values))]


def add_step(
    connection: sqlite3.Connection, tenant: str, command_id: str, at: int, state: CommandState, detail: str
) -> None:
    connection.execute(
        "INSERT INTO dispatch_transition (tenant, command_id, n, at, state, detail) SELECT ?, ?, "
        "coalesce(max(n), 0) + 1, ?, ?, ? FROM dispatch_transition WHERE tenant = ? AND command_id = ?",
        (tenant, command_id, at, state.value, detail, tenant, command_id),
    )


def read_steps(connection: sqlite3.Connection, tenant: str, command_id: str) -> list[CommandStep]:
    query = "SELECT n, at, state, detail FROM dispatch_transition WHERE tenant = ? AND command_id = ? ORDER BY n"
    rows = connection.execute(query, (tenant, command_id))
    return [CommandStep(n, at, CommandState(state), detail) for n, at, state, detail in rows]


def _record(row: tuple[Any, ...]) -> CommandRecord:
    command_id, order_id, did, credential, name, parameters, send_at, expires_at, state, detail, reported = row[:11]
    command = Command(command_id, did, credential, name, json.loads(parameters), expires_at, order_id)
    position, observed_at = row[11:]
    confirmation = None if position is None else Confirmation(position, observed_at)
    return CommandRecord(command, CommandState(state), send_at, detail, json.loads(reported), confirmation)
