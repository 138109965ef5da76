"""What proves a block: its place in the chain of hashes, the hash of its data, and the orderers' signatures.

The orderers sign the header (number, hash of the block before, hash of the data), so they vouch for what was ordered
and in which order. The validation codes are each peer's own finding and are not signed: see the module
`witness`.

On Raft one signature of an orderer of the profile's orderer organisations is enough (that is Fabric's rule too), on BFT
a quorum of the configured consenters must have signed.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.messages import (
    SIGNATURES,
    ConfigEnvelope,
    ConsensusType,
    Envelope,
    IdentifierHeader,
    Metadata,
    OrdererBlockMetadata,
    Orderers,
    Payload,
    SerializedIdentity,
    SignatureHeader,
)
from flexrelay.ledger.fabric.msp import Trust


def header_bytes(header: Any) -> bytes:
    """The ASN.1 (DER) form of a block's header, which is hashed and signed:
    SEQUENCE {number INTEGER, previous_hash OCTET STRING, data_hash OCTET STRING}."""
    number = header.number
    body = (
        _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
        + _der(0x04, header.previous_hash)
        + _der(0x04, header.data_hash)
    )
    return _der(0x30, body)


def _der(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def block_hash(header: Any) -> bytes:
    return hashlib.sha256(header_bytes(header)).digest()


def data_hash(block: Any) -> bytes:
    digest = hashlib.sha256()
    for item in block.data.data:
        digest.update(item)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Consensus:
    """Whose signatures a block needs: `consenters` by id (serialised identities), empty for Raft."""

    kind: str
    consenters: dict[int, bytes]

    @property
    def quorum(self) -> int:
        """How many of the consenters: on BFT ceil((n + f + 1) / 2) with f = (n - 1) // 3; otherwise one."""
        n = len(self.consenters)
        return (n + (n - 1) // 3 + 2) // 2 if self.kind == "BFT" else 1


RAFT = Consensus("etcdraft", {})


def consensus_of(block: Any) -> Consensus:
    """The consensus that a configuration block sets. Raises Untrusted when it cannot be read."""
    try:
        payload = Payload.FromString(Envelope.FromString(block.data.data[0]).payload)
        group = ConfigEnvelope.FromString(payload.data).config.channel_group.groups["Orderer"]
        kind = ConsensusType.FromString(group.values["ConsensusType"].value).type
        consenters = {}
        if kind == "BFT":
            mapping = Orderers.FromString(group.values["Orderers"].value).consenter_mapping
            consenters = {
                item.id: SerializedIdentity(mspid=item.msp_id, id_bytes=item.identity).SerializeToString()
                for item in mapping
            }
    except (DecodeError, IndexError) as error:
        raise Untrusted(f"configuration block {block.header.number} cannot be read: {error}") from None
    if kind == "BFT" and not consenters:
        raise Untrusted(f"configuration block {block.header.number}: BFT without consenters")
    return Consensus(kind, consenters)


def configured(block: Any, trust: Trust) -> Consensus:
    """The consensus that a configuration block sets, taken by itself: one orderer of the profile must have signed it.
    Whose quorum had to is said by the configuration before it. Raises Untrusted."""
    found = consensus_of(block)
    verify_block(block, None, trust, Consensus(RAFT.kind, found.consenters))
    return found


def last_config(block: Any) -> int:
    """The number of the newest configuration block as of this one. Raises Untrusted."""
    try:
        signed = Metadata.FromString(block.metadata.metadata[SIGNATURES]).value
        found: int = OrdererBlockMetadata.FromString(signed).last_config.index
    except (DecodeError, IndexError):
        raise Untrusted(f"block {block.header.number} does not say which configuration holds") from None
    return found


def verify_block(block: Any, previous: bytes | None, trust: Trust, consensus: Consensus) -> bytes:
    """The block's hash, when the block is what it says. `previous` is the hash of the block before, None if unknown.

    Raises Untrusted.
    """
    header = block.header
    where = f"block {header.number}"
    if previous is not None and header.previous_hash != previous:
        raise Untrusted(
            f"{where} follows {header.previous_hash.hex()[:16]}…, but the block before it is {previous.hex()[:16]}…"
        )
    if data_hash(block) != header.data_hash:
        raise Untrusted(f"{where}: the hash in its header is not its data's")
    signed = header_bytes(header)
    if header.number > 0:  # the genesis is signed by nobody: what follows it holds its hash
        _verify_signatures(block, signed, where, trust, consensus)
    return hashlib.sha256(signed).digest()


def _verify_signatures(block: Any, signed: bytes, where: str, trust: Trust, consensus: Consensus) -> None:
    try:
        metadata = Metadata.FromString(block.metadata.metadata[SIGNATURES])
    except (DecodeError, IndexError):
        raise Untrusted(f"{where} carries no signatures of orderers") from None
    found: set[bytes] = set()
    why = "it carries none"
    for item in metadata.signatures:
        try:
            signer, header = _signer(item, consensus)
            member = trust.member(signer, "orderer")
        except (DecodeError, Untrusted) as error:
            why = str(error)
            continue
        if not member.signed(item.signature, metadata.value + header + signed):
            why = f"the signature in the name of {member.name} of {member.org} is not its"
            continue
        found.add(signer)
        if len(found) >= consensus.quorum:
            return
    raise Untrusted(f"{where} has {len(found)} good signatures of orderers and needs {consensus.quorum}: {why}")


def _signer(item: Any, consensus: Consensus) -> tuple[bytes, bytes]:
    """(serialised identity, the header that was signed with the block's)."""
    if not item.signature_header and item.identifier_header:
        number = IdentifierHeader.FromString(item.identifier_header).identifier
        if number not in consensus.consenters:
            raise Untrusted(f"consenter {number} is not in the channel's configuration")
        return consensus.consenters[number], item.identifier_header
    signer = SignatureHeader.FromString(item.signature_header).creator
    if consensus.kind == "BFT" and signer not in consensus.consenters.values():
        raise Untrusted("a signer is no consenter of the channel")
    return signer, item.signature_header
