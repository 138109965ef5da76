"""Reads what a peer hands over with a call: the client's signed proposal and the chaincode's arguments.

The peer has checked the proposal's signature, its creator's certificate and its transaction id before.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from flexrelay_chaincode import wire
from flexrelay_chaincode.failure import Rejected
from flexrelay_contracts.context import Creator


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call. `time_ms` is the proposal's timestamp (UTC, floored), `chaincode` the name that the proposal calls."""

    channel: str
    tx_id: str
    time_ms: int
    creator: Creator
    chaincode: str
    args: tuple[bytes, ...]
    body: bytes

    def transient(self) -> Mapping[str, bytes]:
        """Raises Rejected('malformed_call')."""
        try:
            return dict(wire.ChaincodeProposalPayload.FromString(self.body).TransientMap)
        except DecodeError:
            raise Rejected("malformed_call", "the proposal's payload cannot be read") from None


def read_invocation(message: Any) -> Invocation:
    """The call in a TRANSACTION message. Raises Rejected('malformed_call')."""
    try:
        proposal = wire.Proposal.FromString(message.proposal.proposal_bytes)
        header = wire.Header.FromString(proposal.header)
        channel = wire.ChannelHeader.FromString(header.channel_header)
        serialised = wire.SignatureHeader.FromString(header.signature_header).creator
        called = wire.ChaincodeHeaderExtension.FromString(channel.extension).chaincode_id.name
        args = tuple(wire.ChaincodeInput.FromString(message.payload).args)
    except DecodeError:
        raise Rejected("malformed_call", "the proposal or its arguments cannot be read") from None
    if not serialised:
        raise Rejected("malformed_call", "the call carries no proposal with a creator")
    stamp = channel.timestamp
    time_ms = stamp.seconds * 1000 + stamp.nanos // 1_000_000
    creator = read_creator(serialised)
    return Invocation(message.channel_id, message.txid, time_ms, creator, called, args, proposal.payload)


@lru_cache(maxsize=1024)
def read_creator(serialised: bytes) -> Creator:
    """Organisation (MSP id) and hex SHA-256 of the certificate's uncompressed P-256 point (Fabric's SKI).

    Raises Rejected('malformed_call').
    """
    try:
        identity = wire.SerializedIdentity.FromString(serialised)
        key = x509.load_pem_x509_certificate(identity.id_bytes).public_key()
    except (DecodeError, ValueError):
        raise Rejected("malformed_call", "the creator's certificate cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Rejected("malformed_call", "the creator's certificate holds no elliptic-curve key")
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return Creator(identity.mspid, hashlib.sha256(point).hexdigest())
