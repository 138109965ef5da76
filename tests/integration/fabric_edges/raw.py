"""Straight to a peer by gRPC, past the gateway client: proposals as anybody could make them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2

from flexrelay.ledger.fabric.failures import Failure
from flexrelay.ledger.fabric.identity import fabric_signature
from flexrelay.ledger.fabric.profile import Peer
from flexrelay.ledger.fabric.proposal import Unsigned, propose

LIMIT = 120 * 1024 * 1024
ANSWER_S = 150.0

proposals: Any = proposal_pb2
common: Any = common_pb2
gateway: Any = gateway_pb2
responses: Any = proposal_response_pb2
identities: Any = identities_pb2


@dataclass(frozen=True)
class Stranger:
    """Whoever signs: a certificate (PEM) with its key, in an organisation's name."""

    org: str
    certificate: bytes
    private: ec.EllipticCurvePrivateKey

    @property
    def creator(self) -> bytes:
        serialized: bytes = identities.SerializedIdentity(mspid=self.org, id_bytes=self.certificate).SerializeToString()
        return serialized

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return fabric_signature(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    @classmethod
    def of(cls, org: str, certificate: Path, key: Path) -> Stranger:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(org, certificate.read_bytes(), private)


@dataclass(frozen=True)
class Said:
    """What the peer said: a chaincode's response, or why there is none."""

    status: int
    text: str


class Raw:
    """One peer's services."""

    def __init__(self, peer: Peer, channel: grpc.aio.Channel) -> None:
        self._peer = peer
        self._process = channel.unary_unary(
            "/protos.Endorser/ProcessProposal",
            request_serializer=lambda message: message,
            response_deserializer=responses.ProposalResponse.FromString,
        )
        self._endorse = channel.unary_unary(
            "/gateway.Gateway/Endorse",
            request_serializer=lambda message: message,
            response_deserializer=gateway.EndorseResponse.FromString,
        )

    @classmethod
    @asynccontextmanager
    async def to(cls, peer: Peer) -> AsyncIterator[Raw]:
        credentials = grpc.ssl_channel_credentials(Path(peer.tls_ca).read_bytes())
        options = [
            ("grpc.ssl_target_name_override", peer.server_name),
            ("grpc.max_send_message_length", LIMIT),
            ("grpc.max_receive_message_length", LIMIT),
        ]
        async with grpc.aio.secure_channel(peer.endpoint, credentials, options) as channel:
            yield cls(peer, channel)

    async def process(self, signed: bytes) -> Said:
        """As the endorser service answers a marshalled SignedProposal."""
        try:
            answer = await self._process(signed, timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            return Said(0, f"{error.code().name}: {error.details()}")
        return Said(answer.response.status, answer.response.message or answer.response.payload.decode())

    async def endorse(self, signed: bytes, tx_id: str, channel: str = "market") -> Said:
        """As the gateway service answers."""
        request = gateway.EndorseRequest(transaction_id=tx_id, channel_id=channel)
        request.proposed_transaction.ParseFromString(signed)
        try:
            await self._endorse(request.SerializeToString(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            return Said(0, Failure.of(error, self._peer.endpoint).text())
        return Said(200, "")


def signed(who: Stranger, unsigned: Unsigned, *, signature: bytes | None = None) -> bytes:
    """A marshalled SignedProposal."""
    own = who.sign(unsigned.data) if signature is None else signature
    message: bytes = proposals.SignedProposal(proposal_bytes=unsigned.data, signature=own).SerializeToString()
    return message


def call(
    who: Stranger,
    args: Sequence[bytes],
    timestamp_ms: int,
    *,
    chaincode: str = "flexrelay",
    channel: str = "market",
    transient: dict[str, bytes] | None = None,
) -> tuple[bytes, str]:
    """(signed proposal, its transaction id)."""
    unsigned = propose(channel, chaincode, args, who.creator, timestamp_ms, transient)
    return signed(who, unsigned), unsigned.tx_id


def without(unsigned: Unsigned, **changes: Any) -> Unsigned:
    return dataclasses.replace(unsigned, **changes)


def stamped(unsigned: Unsigned, seconds: int) -> Unsigned:
    """The proposal with another timestamp, also one that no clock shows."""
    proposal = proposals.Proposal.FromString(unsigned.data)
    header = common.Header.FromString(proposal.header)
    channel = common.ChannelHeader.FromString(header.channel_header)
    channel.timestamp.seconds = seconds
    header.channel_header = channel.SerializeToString()
    proposal.header = header.SerializeToString()
    return without(unsigned, data=proposal.SerializeToString())
