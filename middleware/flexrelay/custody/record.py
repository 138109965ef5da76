"""The custody record: one JSON document from a received frame to a line of money, each step with what proves it."""

from typing import Any

from flexrelay_schemas.did import Did, Hash
from flexrelay_schemas.evidence import AnchorId, Base64Url, InclusionProof
from flexrelay_schemas.intent import WallMs
from flexrelay_schemas.model import Items, Model


class FrameLink(Model):
    """The exact bytes as they were received, where they stand in the gateway's journal."""

    position: int
    protocol: str
    credential: str
    channel: str
    received_at: WallMs
    payload: Base64Url
    sha256: Hash


class ReadingLink(Model):
    """What the frame says, and as which entity (NGSI-LD, normalized) it is known."""

    did: Did
    observed_at: WallMs
    registers: dict[str, int]
    provenance: int
    entity: dict[str, Any]


class BlockLink(Model):
    """Where a transaction stands on the ledger."""

    tx_id: str
    block: int
    block_hash: Hash
    previous_hash: str
    validation: str


class AnchorLink(Model):
    """The root under which the window stands, and the transaction that anchored it."""

    org: str
    anchor_id: AnchorId
    root: Hash
    windows: int
    market_ms: WallMs
    block: BlockLink


class CommandLink(Model):
    command_id: str
    did: str
    parameters: dict[str, int]
    state: str
    """The newest that the transport told."""
    confirmed_by: int = 0
    """Journal position of the reading that shows that the device does it; 0 when none does."""


class OrderLink(Model):
    """The order under whose delivery period the reading falls; its id is the correlation id. `body` is the event's."""

    order_id: str
    body: dict[str, Any]
    commands: Items[CommandLink]
    block: BlockLink


class SettlementLink(Model):
    """The line of the reading's interval, and the postings that refer to it."""

    settlement: str
    status: str
    line: dict[str, Any]
    postings: Items[dict[str, Any]]
    block: BlockLink


class CustodyRecord(Model):
    """Frame → reading → window → anchor → block → order → settlement line, as far as the chain has come."""

    v: int = 1
    network: str
    org: str
    frame: FrameLink
    reading: ReadingLink
    proof: InclusionProof | None = None
    anchor: AnchorLink | None = None
    order: OrderLink | None = None
    settlement: SettlementLink | None = None
