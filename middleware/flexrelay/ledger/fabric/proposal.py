"""Proposals: what the gateway asks peers to execute, and the check of what came back."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.encoding import data, number
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.identity import new_nonce, transaction_id
from flexrelay.ledger.fabric.messages import (
    DELIVER_SEEK_INFO,
    ENDORSER_TRANSACTION,
    ChaincodeAction,
    ChaincodeActionPayload,
    ChaincodeProposalPayload,
    ChannelHeader,
    Header,
    KVRWSet,
    Payload,
    ProposalResponsePayload,
    SeekInfo,
    SeekPosition,
    SignatureHeader,
    Transaction,
    TxReadWriteSet,
)
from flexrelay.ledger.fabric.msp import Trust

_GOLANG = 1  # the chaincode type that every client names; peers do not look at it
_LAST_BLOCK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A proposal's bytes and the parts of it that must come back unchanged in the endorsed transaction."""

    tx_id: str
    data: bytes
    channel_header: bytes
    signature_header: bytes
    public_payload: bytes

    @property
    def digest(self) -> bytes:
        """The hash that every endorser signs: headers and arguments, without the transient inputs."""
        return hashlib.sha256(self.channel_header + self.signature_header + self.public_payload).digest()


@dataclass(frozen=True, slots=True)
class Endorsed:
    """What the endorsers signed: the contract's answer, who endorsed, and the whole execution (ChaincodeAction)."""

    result: bytes
    orgs: tuple[str, ...]
    execution: bytes

    @property
    def digest(self) -> str:
        """Hex SHA-256 of all that was read and written."""
        return hashlib.sha256(self.execution).hexdigest()

    @property
    def accesses(self) -> Any:
        """All that was read and written, as a TxReadWriteSet."""
        return TxReadWriteSet.FromString(ChaincodeAction.FromString(self.execution).results)

    def reads(self) -> dict[tuple[str, ...], bytes]:
        """(namespace, key) and (namespace, start, end) → the version, or all that was in the range."""
        found: dict[tuple[str, ...], bytes] = {}
        for space in self.accesses.ns_rwset:
            public = KVRWSet.FromString(space.rwset)
            for read in public.reads:
                found[space.namespace, read.key] = read.version.SerializeToString()
            for asked in public.range_queries_info:
                found[space.namespace, asked.start_key, asked.end_key] = asked.SerializeToString()
        return found


def propose(
    channel: str,
    chaincode: str,
    args: Sequence[bytes],
    creator: bytes,
    timestamp_ms: int,
    transient: Mapping[str, bytes] | None = None,
) -> Unsigned:
    """A new proposal with a new transaction id."""
    nonce = new_nonce()
    tx_id = transaction_id(nonce, creator)
    kind, place, extension, called, signer = _fixed(channel, chaincode, creator)
    stamp = number(1, timestamp_ms // 1000) + number(2, timestamp_ms % 1000 * 1_000_000)
    channel_header = b"".join((kind, data(3, stamp), place, data(5, tx_id.encode()), extension))
    signature_header = signer + data(2, nonce)
    spec = data(1, called + data(3, b"".join([data(1, item) for item in args])))
    public = data(1, spec)
    payload = public
    if transient:
        payload = ChaincodeProposalPayload(input=spec, TransientMap=transient).SerializeToString()
    header = data(1, channel_header) + data(2, signature_header)
    return Unsigned(tx_id, data(1, header) + data(2, payload), channel_header, signature_header, public)


@lru_cache(maxsize=64)
def _fixed(channel: str, chaincode: str, creator: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """What is the same in every proposal: of the ChannelHeader the type (1), the channel (4) and the extension (7), of
    the ChaincodeSpec the type (1) and the chaincode's id (2), of the SignatureHeader the creator (1)."""
    name = data(2, chaincode.encode())
    return (
        number(1, ENDORSER_TRANSACTION),
        data(4, channel.encode()),
        data(7, data(2, name)),
        number(1, _GOLANG) + data(2, name),
        data(1, creator),
    )


def check_endorsed(unsigned: Unsigned, payload: bytes, trust: Trust, asked: Sequence[str]) -> Endorsed:
    """Whether the transaction that a peer assembled is the one that was proposed, endorsed as it says.

    `asked` are the organisations whose endorsement was asked for. Raises Untrusted.
    """
    try:
        outer = Payload.FromString(payload)
        (item,) = Transaction.FromString(outer.data).actions
        action = ChaincodeActionPayload.FromString(item.payload)
        response = ProposalResponsePayload.FromString(action.action.proposal_response_payload)
        executed = ChaincodeAction.FromString(response.extension)
    except (DecodeError, ValueError) as error:
        raise Untrusted(f"the peer's endorsed transaction cannot be read: {error}", unsigned.tx_id) from None
    same = (
        outer.header.channel_header == unsigned.channel_header
        and outer.header.signature_header == unsigned.signature_header
        and item.header == unsigned.signature_header
        and action.chaincode_proposal_payload == unsigned.public_payload
        and response.proposal_hash == unsigned.digest
    )
    if not same:
        raise Untrusted("the peer assembled another transaction than the one that was proposed", unsigned.tx_id)
    orgs = check_endorsements(action.action, trust, unsigned.tx_id)
    missing = sorted(set(asked) - set(orgs))
    if missing:
        raise Untrusted(f"the endorsement of {', '.join(missing)} was asked for and is not there", unsigned.tx_id)
    return Endorsed(executed.response.payload, orgs, response.extension)


def check_endorsements(action: Any, trust: Trust, tx_id: str) -> tuple[str, ...]:
    """The organisations that signed an endorsed action (ChaincodeEndorsedAction), sorted. Raises Untrusted."""
    if not action.endorsements:
        raise Untrusted("the transaction carries no endorsement", tx_id)
    orgs = set()
    for endorsement in action.endorsements:
        member = trust.member(endorsement.endorser, "peer")
        message = action.proposal_response_payload + endorsement.endorser
        if not member.signed(endorsement.signature, message):
            raise Untrusted(f"the endorsement in {member.org}'s name is not signed by its peer", tx_id)
        orgs.add(member.org)
    return tuple(sorted(orgs))


def seek_payload(
    channel: str, creator: bytes, timestamp_ms: int, start: int, stop: int | None, tls_hash: bytes
) -> bytes:
    """The payload to sign that asks a peer for the blocks from `start` to `stop` (None: for ever)."""
    nonce = new_nonce()
    header = ChannelHeader(type=DELIVER_SEEK_INFO, channel_id=channel, tls_cert_hash=tls_hash)
    _stamp(header, timestamp_ms)
    last = _LAST_BLOCK if stop is None else stop
    seek = SeekInfo(
        start=SeekPosition(specified={"number": start}),
        stop=SeekPosition(specified={"number": last}),
    )
    payload: bytes = Payload(
        header=Header(
            channel_header=header.SerializeToString(),
            signature_header=SignatureHeader(creator=creator, nonce=nonce).SerializeToString(),
        ),
        data=seek.SerializeToString(),
    ).SerializeToString()
    return payload


def _stamp(header: Any, timestamp_ms: int) -> None:
    header.timestamp.seconds = timestamp_ms // 1000
    header.timestamp.nanos = timestamp_ms % 1000 * 1_000_000
