"""Signed intents on their way to the ledger: on disk before anything is tried, one recorded end each."""

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
)
from flexrelay.outbox.outbox import BadIntent, IntentClash, Options, Outbox, OutboxFull
from flexrelay.outbox.schema import OUTBOX

__all__ = [
    "OUTBOX",
    "Attempt",
    "BadIntent",
    "CommittedIntent",
    "Entry",
    "ExpiredIntent",
    "IntentClash",
    "Options",
    "Outbox",
    "OutboxFull",
    "OutboxId",
    "Outcome",
    "RefusedIntent",
    "State",
    "Transition",
]
