"""Fabric's blocks taken apart: transactions in order, how each was judged, and its events."""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.messages import (
    CONFIG,
    ENDORSER_TRANSACTION,
    TRANSACTIONS_FILTER,
    ChaincodeAction,
    ChaincodeActionPayload,
    ChaincodeEvent,
    ChannelHeader,
    Envelope,
    Payload,
    ProposalResponsePayload,
    Transaction,
)
from flexrelay.ledger.port import ContractEvent, TxEvents, Validation
from flexrelay_contracts.invocation import EVENTS, decode_events

_LOG = logging.getLogger(__name__)

_VALID: Final = 0
VALIDATIONS: Final = {
    _VALID: Validation.VALID,
    9: Validation.DUPLICATE_TXID,
    10: Validation.ENDORSEMENT_POLICY_FAILURE,
    11: Validation.MVCC_READ_CONFLICT,
    12: Validation.PHANTOM_READ_CONFLICT,
}
"""protos.TxValidationCode; every other code is INVALID."""


@dataclass(frozen=True, slots=True)
class Item:
    """One transaction of a block. `action` is its ChaincodeActionPayload when it is valid and calls a chaincode."""

    tx_id: str
    kind: int
    timestamp: int
    validation: Validation
    payload: bytes
    action: Any


def validation_of(code: int) -> Validation:
    return VALIDATIONS.get(code, Validation.INVALID)


def items_of(block: Any) -> list[Item]:
    """The block's transactions, in order. One that cannot be read is INVALID and has the digest of its bytes as id."""
    metadata = block.metadata.metadata
    codes = metadata[TRANSACTIONS_FILTER] if len(metadata) > TRANSACTIONS_FILTER else b""
    return [
        _item(data, codes[index] if index < len(codes) else _unjudged(block))
        for index, data in enumerate(block.data.data)
    ]


def _unjudged(block: Any) -> int:
    """The genesis block came before any peer judged: its configuration holds."""
    return _VALID if block.header.number == 0 else 254


def _item(data: bytes, code: int) -> Item:
    validation = validation_of(code)
    try:
        payload = Envelope.FromString(data).payload
        outer = Payload.FromString(payload)
        header = ChannelHeader.FromString(outer.header.channel_header)
        action = None
        if validation is Validation.VALID and header.type == ENDORSER_TRANSACTION:
            action = ChaincodeActionPayload.FromString(Transaction.FromString(outer.data).actions[0].payload)
    except (DecodeError, IndexError):
        return Item(hashlib.sha256(data).hexdigest(), -1, 0, Validation.INVALID, b"", None)
    timestamp = header.timestamp.seconds * 1000 + header.timestamp.nanos // 1_000_000
    tx_id = header.tx_id or hashlib.sha256(data).hexdigest()
    return Item(tx_id, header.type, timestamp, validation, payload, action)


def is_config(block: Any) -> bool:
    """Whether the block changes the channel's configuration: such a block holds nothing else. Orderers order none that
    does not hold, so what the peer that sent it says of its validity means nothing."""
    return len(block.data.data) == 1 and items_of(block)[0].kind == CONFIG


def executed(action: Any) -> Any:
    """What the endorsers signed of a transaction (ChaincodeAction). Raises DecodeError."""
    return ChaincodeAction.FromString(
        ProposalResponsePayload.FromString(action.action.proposal_response_payload).extension
    )


def events_of(action: Any, chaincodes: Collection[str], tx_id: str) -> tuple[ContractEvent, ...]:
    """The contract's events of a valid transaction; none of other chaincodes on the channel."""
    try:
        data = executed(action).events
        if not data:
            return ()
        event = ChaincodeEvent.FromString(data)
        if event.chaincode_id not in chaincodes or event.event_name != EVENTS:
            return ()
        return tuple(ContractEvent(name, payload) for name, payload in decode_events(event.payload))
    except (DecodeError, ValueError) as error:
        _LOG.error("transaction %s: its event cannot be read: %s", tx_id, error)
        return ()


def transaction_events(number: int, items: list[Item], chaincodes: Collection[str]) -> tuple[TxEvents, ...]:
    """What the subscribers get of a block."""
    last = len(items) - 1
    return tuple(
        TxEvents(
            number,
            item.tx_id,
            item.validation,
            item.timestamp,
            events_of(item.action, chaincodes, item.tx_id) if item.action is not None else (),
            index == last,
        )
        for index, item in enumerate(items)
    )
