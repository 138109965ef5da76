"""What a transaction would write, and the requests that bring it to the peer."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from flexrelay_chaincode import wire
from flexrelay_chaincode.wire import Announced

_PIECE_BYTES: Final = 8_000_000
"""A batch is cut here too: 1000 large values must not meet the message limit."""

Request = tuple[int, bytes]
"""(type of the message, its payload)."""


class Writes:
    """Collected in memory; the last write of a key counts, as on the embedded ledger. None deletes or purges."""

    def __init__(self) -> None:
        self.public: dict[str, bytes | None] = {}
        self.private: dict[tuple[str, str], bytes | None] = {}
        self.policies: dict[str, tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self.public or self.private or self.policies)

    def requests(self, announced: Announced) -> Iterator[Request]:
        """In batches of the announced size; one by one where the peer takes no batches."""
        if announced.write_batch:
            yield from self._batches(announced.write_batch)
        else:
            yield from self._single()

    def _batches(self, size: int) -> Iterator[Request]:
        kind = wire.ChaincodeMessage.WRITE_BATCH_STATE
        piece: list[Any] = []
        weight = 0
        for record in self._records():
            piece.append(record)
            weight += len(record.value) + len(record.key)
            if len(piece) == size or weight >= _PIECE_BYTES:
                yield kind, wire.WriteBatchState(rec=piece).SerializeToString()
                piece, weight = [], 0
        if piece:
            yield kind, wire.WriteBatchState(rec=piece).SerializeToString()

    def _records(self) -> Iterator[Any]:
        record = wire.WriteRecord
        for key, value in self.public.items():
            if value is None:
                yield record(key=key, type=record.DEL_STATE)
            else:
                yield record(key=key, value=value, type=record.PUT_STATE)
        for (collection, key), value in self.private.items():
            if value is None:
                yield record(key=key, collection=collection, type=record.PURGE_PRIVATE_DATA)
            else:
                yield record(key=key, collection=collection, value=value, type=record.PUT_STATE)
        for key, orgs in self.policies.items():
            yield record(key=key, metadata=_policy_entry(orgs), type=record.PUT_STATE_METADATA)

    def _single(self) -> Iterator[Request]:
        message = wire.ChaincodeMessage
        for key, value in self.public.items():
            if value is None:
                yield message.DEL_STATE, wire.DelState(key=key).SerializeToString()
            else:
                yield message.PUT_STATE, wire.PutState(key=key, value=value).SerializeToString()
        for (collection, key), value in self.private.items():
            if value is None:
                purge = wire.DelState(key=key, collection=collection)
                yield message.PURGE_PRIVATE_DATA, purge.SerializeToString()
            else:
                put = wire.PutState(key=key, value=value, collection=collection)
                yield message.PUT_STATE, put.SerializeToString()
        for key, terms in self.policies.items():
            entry = wire.PutStateMetadata(key=key, metadata=_policy_entry(terms))
            yield message.PUT_STATE_METADATA, entry.SerializeToString()


def _policy_entry(terms: Sequence[str]) -> Any:
    return wire.StateMetadata(metakey=wire.VALIDATION_PARAMETER, value=key_policy(terms))


def key_policy(terms: Sequence[str]) -> bytes:
    """A policy of `flexrelay_contracts.context.policy_terms`, met by the organisations' peers, as a marshalled
    SignaturePolicyEnvelope; empty bytes (no policy of the key's own) for no term.

    Validation takes empty bytes as no policy. A peer's gateway does not: it plans no endorsements for such a key, so a
    transaction that writes it must name its endorsing organisations.
    """
    if not terms:
        return b""
    names = sorted({org for term in terms for org in term.split("|")})
    role = wire.MSPRole
    identities = [
        wire.MSPPrincipal(principal=role(msp_identifier=name, role=role.PEER).SerializeToString()) for name in names
    ]

    def of(count: int, rules: list[Any]) -> Any:
        return wire.SignaturePolicy(n_out_of=wire.SignaturePolicy.NOutOf(n=count, rules=rules))

    rules = []
    for term in terms:
        signed = [wire.SignaturePolicy(signed_by=names.index(org)) for org in term.split("|")]
        rules.append(signed[0] if len(signed) == 1 else of(1, signed))
    rule = of(len(rules), rules)
    envelope: bytes = wire.SignaturePolicyEnvelope(version=0, rule=rule, identities=identities).SerializeToString()
    return envelope
