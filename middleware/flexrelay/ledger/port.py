"""The ledger port: five calls, the same on every ledger. One object is one gateway's connection.

A write goes `prepare` → store the envelope → `submit` → learn the outcome from `events` or `status`. An envelope may be
submitted any number of times: the ledger applies it at most once. Reading blocks is the second port, `BlockReader`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction to prepare: the signed intent's bytes, inputs that stay off the chain, endorsers by hint."""

    intent: bytes
    transient: Mapping[str, bytes] = field(default_factory=dict)
    endorsing_orgs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Endorsed and signed, nothing ordered yet. `result` is what the contract's function returned."""

    tx_id: str
    envelope: bytes
    result: Mapping[str, Any]


class Validation(Enum):
    """How a transaction that stands in a block was judged at commit."""

    VALID = "VALID"
    MVCC_READ_CONFLICT = "MVCC_READ_CONFLICT"
    PHANTOM_READ_CONFLICT = "PHANTOM_READ_CONFLICT"
    ENDORSEMENT_POLICY_FAILURE = "ENDORSEMENT_POLICY_FAILURE"
    DUPLICATE_TXID = "DUPLICATE_TXID"
    INVALID = "INVALID"

    @property
    def conflict(self) -> bool:
        """The state moved on: prepare a new transaction under the same intent."""
        return self in (Validation.MVCC_READ_CONFLICT, Validation.PHANTOM_READ_CONFLICT)


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction stands in block `block`; the first VALID of a tx id counts, later duplicates do not."""

    tx_id: str
    block: int
    validation: Validation


@dataclass(frozen=True, slots=True)
class NotFound:
    """No block holds the transaction so far; it may still come."""

    tx_id: str


TxStatus = Committed | NotFound


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last transaction that was consumed; delivery resumes after it. `block` = -1: from the beginning."""

    block: int = -1
    tx_id: str = ""


@dataclass(frozen=True, slots=True)
class ContractEvent:
    """One event of a valid transaction."""

    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class TxEvents:
    """One transaction of a block, in order: its validation and, when VALID, its events (often none)."""

    block: int
    tx_id: str
    validation: Validation
    timestamp: int
    events: tuple[ContractEvent, ...]
    last_in_block: bool

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.block, self.tx_id)


class LedgerError(Exception):
    """Root of the ledger's failures; `tx_id` where one is known."""

    def __init__(self, message: str, tx_id: str = "") -> None:
        super().__init__(message + (f" [transaction {tx_id}]" if tx_id else ""))
        self.tx_id = tx_id


class LedgerUnavailable(LedgerError):
    """Nothing was done: try again later."""


class OutcomeUnknown(LedgerError):
    """The envelope may or may not have been ordered: ask `status`, then submit the same envelope again."""


class Rejected(LedgerError):
    """The ledger will never take this envelope (bad creator, timestamp out of the guard, malformed, too large)."""


class Misconfigured(LedgerError):
    """What the configuration names cannot be used: the message says file, field and remedy."""


class NeedsAttention(LedgerError):
    """Trying again may not help by itself: somebody has to look. `alarm` names the kind, for metrics."""

    alarm: str = "ledger"
    patience_s: float = 3.0
    """How long it may last before somebody should look."""


class Ledger(Protocol):
    """One gateway's connection to the ledger. A contract's refusal is raised as `flexrelay_contracts.refusal.Refused`
    by `evaluate` and `prepare`; every other failure is a LedgerError."""

    @property
    def org(self) -> str: ...

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        """The JSON value of a query, on a state that holds every block which this connection has seen (`events`,
        `status`). So is the state on which `prepare` refuses."""
        ...

    async def prepare(self, call: Call) -> Prepared: ...

    async def submit(self, envelope: bytes) -> None:
        """Order the envelope. Returning says nothing about the commit. Raises OutcomeUnknown, LedgerUnavailable,
        Rejected."""
        ...

    async def status(self, tx_id: str) -> TxStatus: ...

    def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        """All transactions after the checkpoint, in order, for ever: at least once, never one left out."""
        ...


@dataclass(frozen=True, slots=True)
class BlockView:
    """A block as it is shown to people."""

    number: int
    previous_hash: str
    hash: str
    transactions: Sequence[Mapping[str, Any]]


class GatewaySigner(Protocol):
    """What signs a gateway's transactions: 64 bytes over the message, by the key whose Multikey is `public_key`."""

    @property
    def public_key(self) -> str: ...

    async def sign(self, message: bytes, /) -> bytes: ...


class BlockReader(Protocol):
    """Reading blocks: `flexrelay ledger show` and `verify`."""

    async def height(self) -> int: ...

    async def block(self, number: int) -> BlockView: ...


class LedgerHost(BlockReader, Protocol):
    """The ledger as one process holds it for its gateways."""

    @property
    def kind(self) -> str:
        """ "embedded" or "fabric"."""
        ...

    @property
    def trouble(self) -> str:
        """Why nothing can be ordered now, "" when it can."""
        ...

    async def connect(self, org: str, signer: GatewaySigner) -> Ledger:
        """The connection of the organisation's gateway. Raises LedgerError."""
        ...

    async def connect_later(self, org: str, signer: GatewaySigner) -> Ledger:
        """As `connect`. Where nobody answers it is tried on: until then the connection's calls raise LedgerUnavailable
        and its events wait. Raises LedgerError for what is wrong and no waiting helps."""
        ...

    async def failing(self) -> None:
        """Waits for ever; raises the LedgerError with which a connection that was tried on turned out to be wrong."""
        ...

    async def identity(self, org: str, signer: GatewaySigner) -> str:
        """The creator's identity under which that gateway's transactions come in (hex SHA-256 of a public key)."""
        ...
