"""Judging the transactions of a block, in order: duplicates, endorsement, versions, phantoms; the first one wins."""

import bisect
import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from flexrelay.ledger.embedded.envelope import Body, unb64
from flexrelay.ledger.embedded.genesis import EndorsementPolicy, Genesis
from flexrelay.ledger.embedded.private import PrivateChange
from flexrelay.ledger.embedded.simulation import RangeDigest
from flexrelay.ledger.embedded.state import Entry, State, hash_key
from flexrelay.ledger.port import Validation


@dataclass(slots=True)
class Judgement:
    """The outcome of a block: one validation per transaction and all changes to the state."""

    number: int
    validations: list[Validation] = field(default_factory=list)
    changes: dict[str, Entry | None] = field(default_factory=dict)
    private: list[PrivateChange] = field(default_factory=list)
    first: list[tuple[str, Validation]] = field(default_factory=list)
    """(tx id, validation) of every transaction that is not a duplicate."""


class Validator:
    """Judges blocks against a state; it changes neither."""

    def __init__(self, genesis: Genesis, state: State) -> None:
        self._genesis = genesis
        self._state = state
        self._policies: dict[str, EndorsementPolicy] = {}

    def judge(self, number: int, bodies: Sequence[Body], fresh: Container[str] = ()) -> Judgement:
        """Judge a block's transactions. `fresh`: ids that are known to stand in no block."""
        judgement = Judgement(number)
        seen: set[str] = set()
        for index, body in enumerate(bodies):
            known = body["tx_id"] not in fresh and self._state.transaction(body["tx_id"]) is not None
            validation = Validation.DUPLICATE_TXID if known else self.judge_one(judgement, seen, index, body)
            judgement.validations.append(validation)
        return judgement

    def judge_one(self, judgement: Judgement, seen: set[str], index: int, body: Body) -> Validation:
        """Judge the next transaction of the block and, when it is valid, add its changes."""
        tx_id = body["tx_id"]
        if tx_id in seen:
            return Validation.DUPLICATE_TXID
        seen.add(tx_id)
        validation = self._check(judgement.changes, body)
        judgement.first.append((tx_id, validation))
        if validation is Validation.VALID:
            collect(judgement, index, body, self._state)
        return validation

    def _check(self, changes: Mapping[str, Entry | None], body: Body) -> Validation:
        if not self._endorsed(changes, body):
            return Validation.ENDORSEMENT_POLICY_FAILURE
        for key, *version in body["reads"]:
            if not self._unchanged(changes, key, version):
                return Validation.MVCC_READ_CONFLICT
        for collection, key_hash, *version in body["private_reads"]:
            if not self._unchanged(changes, hash_key(collection, key_hash), version):
                return Validation.MVCC_READ_CONFLICT
        for start, end, count, digest in body["ranges"]:
            if (count, digest) != self._range(changes, start, end):
                return Validation.PHANTOM_READ_CONFLICT
        return Validation.VALID

    def _unchanged(self, changes: Mapping[str, Entry | None], key: str, version: list[int]) -> bool:
        entry = changes[key] if key in changes else self._state.get(key)
        if entry is None:
            return not version
        return len(version) == 2 and version[0] == entry.block and version[1] == entry.tx

    def _endorsed(self, changes: Mapping[str, Entry | None], body: Body) -> bool:
        endorsing = frozenset(org for org, _ in body["orgs"])
        policy = self._policies.get(body["function"])
        if policy is None:
            policy = self._policies[body["function"]] = self._genesis.policy(body["function"])
        if not policy.satisfied(endorsing):
            return False
        for key, _ in (*body["writes"], *body["policies"]):
            needed = _policy(changes, self._state, key)
            if needed is not None and not endorsing.issuperset(needed):
                return False
        return True

    def _range(self, changes: Mapping[str, Entry | None], start: str, end: str) -> tuple[int, str]:
        rows = self._state.versions(start, end)
        changed = [key for key in changes if start <= key < end]
        if changed:
            kept = [row for row in rows if row[0] not in changes]
            for key in changed:
                if (entry := changes[key]) is not None:
                    bisect.insort(kept, (key, entry.block, entry.tx))
            rows = kept
        digest = RangeDigest()
        for key, block, tx in rows:
            digest.add(key, block, tx)
        return digest.count, digest.hex()


def collect(judgement: Judgement, index: int, body: Body, state: State) -> None:
    """Add the changes of a valid transaction: values, key policies, private hashes."""
    changes, number = judgement.changes, judgement.number
    for key, text in body["writes"]:
        if text is None:
            changes[key] = None
        else:
            changes[key] = Entry(unb64(text), number, index, _policy(changes, state, key))
    for key, orgs in body["policies"]:
        old = changes[key] if key in changes else state.get(key)
        if old is not None:
            changes[key] = Entry(old.value, number, index, tuple(orgs) or None)
    for collection, key_hash, value_hash in body["private"]:
        place = hash_key(collection, key_hash)
        changes[place] = None if value_hash is None else Entry(bytes.fromhex(value_hash), number, index, None)
        judgement.private.append(PrivateChange(body["tx_id"], collection, key_hash, value_hash))


def _policy(changes: Mapping[str, Entry | None], state: State, key: str) -> tuple[str, ...] | None:
    if key in changes:
        entry = changes[key]
        return None if entry is None else entry.policy
    return state.policy(key)


def value_hash(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
