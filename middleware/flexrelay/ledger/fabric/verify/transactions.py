"""Transactions as they stand in blocks, taken apart for judging and executing them again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.blocks import executed
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.identity import transaction_id
from flexrelay.ledger.fabric.messages import (
    ENDORSER_TRANSACTION,
    ChaincodeActionPayload,
    ChaincodeHeaderExtension,
    ChaincodeInvocationSpec,
    ChaincodeProposalPayload,
    ChannelHeader,
    Envelope,
    HashedRWSet,
    KVRWSet,
    Payload,
    ProposalResponsePayload,
    SignatureHeader,
    Transaction,
    TxReadWriteSet,
)
from flexrelay.ledger.fabric.msp import Member, Trust
from flexrelay_schemas.canonical import CanonicalError, parse


@dataclass(frozen=True, slots=True)
class Space:
    """What a transaction read and wrote in one namespace: KVRWSet, and (collection, HashedRWSet)."""

    name: str
    public: Any
    private: Sequence[tuple[str, Any]]

    @property
    def writes(self) -> bool:
        hashed = any(found.hashed_writes or found.metadata_writes for _, found in self.private)
        return bool(self.public.writes or self.public.metadata_writes or hashed)


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction that calls a chaincode. `endorsed` is its ChaincodeEndorsedAction, `executed` what was signed."""

    tx_id: str
    creator: Member
    timestamp_ms: int
    chaincode: str
    args: tuple[bytes, ...]
    endorsed: Any
    executed: Any
    spaces: tuple[Space, ...]

    @property
    def function(self) -> str:
        """The function that its intent names, "" when it has none."""
        try:
            value = parse(self.args[1]) if len(self.args) == 2 else None
        except CanonicalError:
            return ""
        inner = value.get("intent") if isinstance(value, dict) else None
        name = inner.get("function") if isinstance(inner, dict) else None
        return name if isinstance(name, str) else ""

    def space(self, name: str) -> Space:
        """Of a namespace that it may not have touched."""
        return next((space for space in self.spaces if space.name == name), Space(name, KVRWSet(), ()))


class Malformed(Exception):
    """A transaction that no peer may call valid; the message says why."""


def header_of(data: bytes) -> Any:
    """The channel header of an envelope, None when it cannot be read."""
    try:
        return ChannelHeader.FromString(Payload.FromString(Envelope.FromString(data).payload).header.channel_header)
    except DecodeError:
        return None


def read(data: bytes, channel: str, trust: Trust) -> Call:
    """A transaction after the checks of its own: signature, id, headers. Raises Malformed."""
    try:
        envelope = Envelope.FromString(data)
        outer = Payload.FromString(envelope.payload)
        header = ChannelHeader.FromString(outer.header.channel_header)
        signing = SignatureHeader.FromString(outer.header.signature_header)
        if header.type != ENDORSER_TRANSACTION or header.channel_id != channel:
            raise Malformed(f"is of type {header.type} for channel {header.channel_id!r}")
        (item,) = Transaction.FromString(outer.data).actions
        payload = ChaincodeActionPayload.FromString(item.payload)
        response = ProposalResponsePayload.FromString(payload.action.proposal_response_payload)
        named = ChaincodeHeaderExtension.FromString(header.extension).chaincode_id.name
        proposal = ChaincodeProposalPayload.FromString(payload.chaincode_proposal_payload)
        spec = ChaincodeInvocationSpec.FromString(proposal.input).chaincode_spec
        action = executed(payload)
        spaces = tuple(
            Space(
                space.namespace,
                KVRWSet.FromString(space.rwset),
                [
                    (found.collection_name, HashedRWSet.FromString(found.hashed_rwset))
                    for found in space.collection_hashed_rwset
                ],
            )
            for space in TxReadWriteSet.FromString(action.results).ns_rwset
        )
    except (DecodeError, ValueError) as error:
        raise Malformed(f"cannot be read: {error}") from None
    try:
        creator = trust.creator(signing.creator)
    except Untrusted as error:
        raise Malformed(f"its creator is not known: {error}") from None
    if not creator.signed(envelope.signature, envelope.payload):
        raise Malformed("the signature is not its creator's")
    if transaction_id(signing.nonce, signing.creator) != header.tx_id:
        raise Malformed("its id does not follow from nonce and creator")
    signed = outer.header.channel_header + item.header + payload.chaincode_proposal_payload
    if response.proposal_hash != hashlib.sha256(signed).digest() or item.header != outer.header.signature_header:
        raise Malformed("what was endorsed is not the proposal in it")
    if not named == action.chaincode_id.name == spec.chaincode_id.name:
        raise Malformed("it names several chaincodes")
    timestamp = header.timestamp.seconds * 1000 + header.timestamp.nanos // 1_000_000
    return Call(header.tx_id, creator, timestamp, named, tuple(spec.input.args), payload.action, action, spaces)
