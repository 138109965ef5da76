"""A small Fabric in memory: organisations with certificates, endorsed transactions, signed blocks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fabric_protos.common import configuration_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from flexrelay.ledger.fabric import messages as pb
from flexrelay.ledger.fabric.identity import new_nonce
from flexrelay.ledger.fabric.msp import Kind, Trust
from flexrelay.ledger.fabric.proposal import Unsigned, propose
from flexrelay.ledger.fabric.verification import data_hash, header_bytes
from flexrelay_contracts.invocation import EVENTS, encode_events

CHANNEL = "grid"
CHAINCODE = "flexrelay"
ECDSA = ec.ECDSA(hashes.SHA256())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Authority:
    """An organisation's certificate authority."""

    org: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        self.certificate = self._make(f"ca.{self.org}", "ca", self.key.public_key(), ca=True, days=(-400, 400))

    def issue(
        self, name: str, unit: str, key: ec.EllipticCurvePublicKey, days: tuple[int, int] = (-1, 30)
    ) -> x509.Certificate:
        return self._make(name, unit, key, ca=False, days=days)

    def _make(
        self, name: str, unit: str, key: ec.EllipticCurvePublicKey, *, ca: bool, days: tuple[int, int]
    ) -> x509.Certificate:
        def named(common: str, of: str) -> x509.Name:
            return x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.org),
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, of),
                    x509.NameAttribute(NameOID.COMMON_NAME, common),
                ]
            )

        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name, unit))
            .issuer_name(named(f"ca.{self.org}", "ca"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class Node:
    """A peer, orderer or client with its certificate."""

    def __init__(self, authority: Authority, name: str, unit: str) -> None:
        self.key = new_key()
        self.org = authority.org
        self.certificate = authority.issue(name, unit, self.key.public_key())
        self.serialized: bytes = pb.SerializedIdentity(
            mspid=self.org, id_bytes=pem(self.certificate)
        ).SerializeToString()

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message, ECDSA)


class World:
    """Two organisations with a peer each, four orderers, a client of the first organisation."""

    def __init__(self) -> None:
        self.authorities = {org: Authority(org) for org in ("dso", "agga", "op")}
        self.peers = {org: Node(self.authorities[org], f"peer0.{org}", "peer") for org in ("dso", "agga")}
        self.orderers = [Node(self.authorities["op"], f"orderer{n}", "orderer") for n in range(4)]
        self.client = Node(self.authorities["dso"], "gateway", "client")
        kinds: dict[str, Kind] = {"dso": "peer", "agga": "peer", "op": "orderer"}
        self.trust = Trust({(org, kinds[org]): [self.authorities[org].certificate] for org in kinds})

    def proposal(self, args: Sequence[bytes] = (b"submit", b"{}")) -> Unsigned:
        return propose(CHANNEL, CHAINCODE, args, self.client.serialized, 1_700_000_000_123)

    def endorsed(
        self,
        unsigned: Unsigned,
        endorsers: Sequence[Node],
        result: bytes = b"{}",
        events: Sequence[tuple[str, bytes]] = (),
    ) -> bytes:
        """The payload of the envelope, as a gateway assembles it."""
        event = pb.ChaincodeEvent(
            chaincode_id=CHAINCODE, tx_id=unsigned.tx_id, event_name=EVENTS, payload=encode_events(events)
        )
        action = pb.ChaincodeAction(
            results=b"",
            events=event.SerializeToString() if events else b"",
            response={"status": 200, "payload": result},
        )
        response = pb.ProposalResponsePayload(
            proposal_hash=unsigned.digest, extension=action.SerializeToString()
        ).SerializeToString()
        endorsements = [
            {"endorser": node.serialized, "signature": node.sign(response + node.serialized)} for node in endorsers
        ]
        body = pb.ChaincodeActionPayload(
            chaincode_proposal_payload=unsigned.public_payload,
            action={"proposal_response_payload": response, "endorsements": endorsements},
        )
        item = {"header": unsigned.signature_header, "payload": body.SerializeToString()}
        payload: bytes = pb.Payload(
            header={"channel_header": unsigned.channel_header, "signature_header": unsigned.signature_header},
            data=pb.Transaction(actions=[item]).SerializeToString(),
        ).SerializeToString()
        return payload

    def envelope(self, payload: bytes) -> bytes:
        data: bytes = pb.Envelope(payload=payload, signature=self.client.sign(payload)).SerializeToString()
        return data

    def configuration(self, kind: str, consenters: Sequence[Node] = ()) -> bytes:
        """The envelope of a configuration block: kind "etcdraft" or "BFT" (with these, or all four orderers)."""
        config = pb.ConfigEnvelope()
        group = config.config.channel_group.groups["Orderer"]
        group.values["ConsensusType"].value = orderer_pb2.ConsensusType(type=kind).SerializeToString()
        if kind == "BFT":
            mapping = [
                {"id": number, "msp_id": node.org, "identity": pem(node.certificate)}
                for number, node in enumerate(consenters or self.orderers, 1)
            ]
            group.values["Orderers"].value = configuration_pb2.Orderers(consenter_mapping=mapping).SerializeToString()
        header = pb.ChannelHeader(type=pb.CONFIG, channel_id=CHANNEL)
        payload = pb.Payload(
            header={"channel_header": header.SerializeToString()}, data=config.SerializeToString()
        ).SerializeToString()
        data: bytes = pb.Envelope(payload=payload).SerializeToString()
        return data

    def block(
        self,
        number: int,
        previous: bytes,
        data: Sequence[bytes],
        codes: Sequence[int],
        *,
        signers: Sequence[Node] | None = None,
        bft: Sequence[int] = (),
        last_config: int = 0,
    ) -> Any:
        """A block signed by `signers` (the first orderer), or by the BFT consenters of these ids."""
        block = pb.Block()
        block.header.number = number
        block.header.previous_hash = previous
        block.data.data.extend(data)
        block.header.data_hash = data_hash(block)
        value = pb.OrdererBlockMetadata(last_config={"index": last_config}).SerializeToString()
        metadata = pb.Metadata(value=value)
        signed = header_bytes(block.header)
        for node in [] if bft else (self.orderers[:1] if signers is None else signers):
            header = pb.SignatureHeader(creator=node.serialized, nonce=new_nonce()).SerializeToString()
            metadata.signatures.add(signature_header=header, signature=node.sign(value + header + signed))
        for identifier in bft:
            node = self.orderers[identifier - 1]
            header = pb.IdentifierHeader(identifier=identifier, nonce=new_nonce()).SerializeToString()
            metadata.signatures.add(identifier_header=header, signature=node.sign(value + header + signed))
        block.metadata.metadata.extend([metadata.SerializeToString(), b"", bytes(codes), b"", b""])
        return block


def own_hash(block: Any) -> bytes:
    return hashlib.sha256(header_bytes(block.header)).digest()
