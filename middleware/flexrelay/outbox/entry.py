"""What stands in the outbox: an entry, its transactions, its transitions, and the three ways in which it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NewType

from flexrelay.ledger.port import Validation

OutboxId = NewType("OutboxId", int)


class State(Enum):
    """pending → prepared → submitted → committed | refused | expired. The others are steps on the way, never ends."""

    PENDING = "pending"
    """Nothing was endorsed yet; no envelope exists."""
    PREPARED = "prepared"
    """Transaction id and envelope are stored; from here on the envelope may be on its way to a block."""
    SUBMITTED = "submitted"
    """The ledger took the envelope to be ordered."""
    UNKNOWN = "unknown"
    """Whether the envelope was ordered is not known; it is asked for, then the same envelope goes again."""
    CONFLICTED = "conflicted"
    """The envelope stands in a block as invalid; a new transaction under the same intent follows."""
    VOIDING = "voiding"
    """The deadline has passed and an envelope may still be on its way: the intent is being voided on the ledger."""
    COMMITTED = "committed"
    REFUSED = "refused"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in (State.COMMITTED, State.REFUSED, State.EXPIRED)


@dataclass(frozen=True, slots=True)
class Entry:
    """One intent on its way. Times are wall-clock UTC milliseconds; `deadline` is the intent's own.

    `gate` is the instant before which it should be on the ledger (None: no hurry). Entries with the same non-empty
    `ordering_key` are carried one after the other.
    """

    id: OutboxId
    actor: str
    intent_id: str
    function: str
    intent: bytes
    transient: Mapping[str, bytes]
    endorsing_orgs: tuple[str, ...]
    ordering_key: str
    correlation_id: str
    deadline: int
    gate: int | None
    state: State
    tx_id: str
    block: int | None
    result: Mapping[str, Any] | None
    code: str
    message: str
    field: str
    added_at: int
    changed_at: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One transaction that was prepared for an entry; `role` is "intent", or "void" for the one that closes it.

    `validation` is None until a block tells; while it is None the envelope may still commit.
    """

    tx_id: str
    role: str
    envelope: bytes
    result: Mapping[str, Any]
    prepared_at: int
    validation: Validation | None
    block: int | None


@dataclass(frozen=True, slots=True)
class Transition:
    """A state that an entry reached at `at`; `n` counts from 1."""

    n: int
    at: int
    state: State
    tx_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class CommittedIntent:
    """It stands in block `block` as valid; `block` is -1 when another gateway carried it and only its id is known."""

    tx_id: str
    block: int
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RefusedIntent:
    """The contract or the ledger said no; nothing of it stands on the ledger."""

    code: str
    message: str
    field: str


@dataclass(frozen=True, slots=True)
class ExpiredIntent:
    """It can never commit: its deadline passed, and no envelope was made or the ledger holds its void (`tx_id`)."""

    tx_id: str


Outcome = CommittedIntent | RefusedIntent | ExpiredIntent


def outcome_of(entry: Entry) -> Outcome | None:
    """The end of an entry, None while it is open."""
    match entry.state:
        case State.COMMITTED:
            return CommittedIntent(entry.tx_id, -1 if entry.block is None else entry.block, entry.result or {})
        case State.REFUSED:
            return RefusedIntent(entry.code, entry.message, entry.field)
        case State.EXPIRED:
            return ExpiredIntent(entry.tx_id)
        case _:
            return None
