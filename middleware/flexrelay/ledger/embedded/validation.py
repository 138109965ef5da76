"""Judging the transactions of a block, in order and by Fabric's rules, down to which failure is told when there are
several: known ids, endorsement, ids that came earlier in the block, versions, phantoms, versions of private values."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexrelay.ledger.embedded.envelope import Body, unb64
from flexrelay.ledger.embedded.genesis import EndorsementPolicy, Genesis
from flexrelay.ledger.embedded.overlay import Overlay
from flexrelay.ledger.embedded.private import PrivateChange
from flexrelay.ledger.embedded.simulation import RangeDigest
from flexrelay.ledger.embedded.state import Entry, State, hash_key
from flexrelay.ledger.port import Validation
from flexrelay_contracts.context import policy_met


class Policies:
    """The endorsement policy of each function, looked up once."""

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self._known: dict[str, EndorsementPolicy] = {}

    def of(self, function: str) -> EndorsementPolicy:
        policy = self._known.get(function)
        if policy is None:
            policy = self._known[function] = self._genesis.policy(function)
        return policy


@dataclass(slots=True)
class Judgement:
    """The outcome of a block: one validation per transaction and what its valid transactions change."""

    number: int
    overlay: Overlay
    validations: list[Validation] = field(default_factory=list)
    private: list[PrivateChange] = field(default_factory=list)
    first: dict[str, Validation] = field(default_factory=dict)
    """Transactions that are no duplicates, by id."""
    renewed: set[str] = field(default_factory=set)
    """Keys whose policy an endorsed transaction of the block changes: no later one of the same block may write them."""

    @property
    def changes(self) -> dict[str, Entry | None]:
        return self.overlay.changes

    def take(self, body: Body, validation: Validation) -> None:
        """Note the outcome of the next transaction; a valid one changes the state."""
        index = len(self.validations)
        self.validations.append(validation)
        if validation is not Validation.DUPLICATE_TXID:
            self.first.setdefault(body["tx_id"], validation)
        if validation is Validation.VALID:
            self._collect(index, body)

    def _collect(self, index: int, body: Body) -> None:
        changes, number = self.overlay.changes, self.number
        for key, text in body["writes"]:
            changes[key] = None if text is None else Entry(unb64(text), number, index, self.overlay.policy(key))
        self.overlay.has_policies |= bool(body["policies"])
        for key, orgs in body["policies"]:
            old = self.overlay.get(key)
            if old is not None:
                changes[key] = Entry(old.value, number, index, tuple(orgs) or None)
        for collection, key_hash, value_hash in body["private"]:
            place = hash_key(collection, key_hash)
            changes[place] = None if value_hash is None else Entry(bytes.fromhex(value_hash), number, index, None)
            self.private.append(PrivateChange(body["tx_id"], collection, key_hash, value_hash))


class Validator:
    """Judges transactions against a state; it does not change it."""

    def __init__(self, policies: Policies, state: State) -> None:
        self._policies = policies
        self._state = state

    def judge(self, number: int, bodies: Sequence[Body], fresh: Container[str] = ()) -> Judgement:
        """Judge a block's transactions. `fresh`: ids that are known to stand in no block."""
        judgement = Judgement(number, Overlay(self._state))
        for body in bodies:
            judgement.take(body, self.judge_next(judgement, body, fresh))
        return judgement

    def judge_next(self, judgement: Judgement, body: Body, fresh: Container[str] = ()) -> Validation:
        """What becomes of the next transaction of the block."""
        tx_id = body["tx_id"]
        if tx_id not in fresh and self._state.transaction(tx_id) is not None:
            return Validation.DUPLICATE_TXID
        view, changes = judgement.overlay, judgement.overlay.changes
        if not self._endorsed(judgement, body):
            return Validation.ENDORSEMENT_POLICY_FAILURE
        if tx_id in judgement.first:
            return Validation.DUPLICATE_TXID
        for row in body["reads"]:
            # What the block has touched conflicts, even when a key that was absent is absent again.
            if row[0] in changes or not _unchanged(view.get(row[0]), row, 1):
                return Validation.MVCC_READ_CONFLICT
        for start, end, count, digest in body["ranges"]:
            found = RangeDigest()
            for row in view.versions(start, end):
                found.add(*row)
            if (found.count, found.hex()) != (count, digest):
                return Validation.PHANTOM_READ_CONFLICT
        for row in body["private_reads"]:
            place = hash_key(row[0], row[1])
            if place in changes or not _unchanged(view.get(place), row, 2):
                return Validation.MVCC_READ_CONFLICT
        return Validation.VALID

    def _endorsed(self, judgement: Judgement, body: Body) -> bool:
        """The contract's policy, and the policy that each key which is written had before the block."""
        state, renewed = self._state, judgement.renewed
        endorsing = frozenset([org for org, _ in body["orgs"]])
        if not self._policies.of(body["function"]).satisfied(endorsing):
            return False
        if not state.has_policies and not renewed and not body["policies"]:
            return True
        for key, _ in (*body["writes"], *body["policies"]):
            if key in renewed:
                return False
            needed = state.policy(key)
            if needed is not None and not policy_met(needed, endorsing):
                return False
        renewed.update([key for key, _ in body["policies"]])
        return True


def _unchanged(entry: Entry | None, row: Sequence[Any], at: int) -> bool:
    """Whether a read's row, whose version stands from `at` on (nothing: the key was absent), is true of the entry."""
    if entry is None:
        return len(row) == at
    return len(row) == at + 2 and row[at] == entry.block and row[at + 1] == entry.tx
