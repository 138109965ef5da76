"""A projector: which events it knows and what each does to the tables. A new one is one entry in `catalogue`."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """A contract's event. `sequence` counts all events of the chain from 1; `at` is the transaction's timestamp."""

    sequence: int
    block: int
    tx_id: str
    at: int
    name: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a handler writes: only rows of this tenant, in the transaction that also keeps the position."""

    connection: sqlite3.Connection
    tenant: str


Handler = Callable[[Scope, Event], None]
Projector = Mapping[str, Handler]
"""Event name → handler. Handlers are deterministic: the same events give the same rows."""


class ProjectionFailed(Exception):
    """An event does not have the form that its projector knows: this program is older than the contracts, or broken.

    Nothing of its block was applied; the position stays before it.
    """

    def __init__(self, event: Event, why: Exception) -> None:
        super().__init__(
            f"event {event.name} of transaction {event.tx_id} in block {event.block} cannot be projected: {why!r}; "
            "update the program, then start again"
        )
        self.event = event
