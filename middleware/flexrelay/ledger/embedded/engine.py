"""The ledger's core: simulate, accept, judge, apply. Synchronous; one caller at a time, see `worker`."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flexrelay.ledger.embedded import envelope as wire
from flexrelay.ledger.embedded.block import encode_block
from flexrelay.ledger.embedded.genesis import Genesis
from flexrelay.ledger.embedded.identity import creator_bytes, key_identifier, transaction_id
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.simulation import Simulation, footprint
from flexrelay.ledger.embedded.state import State, StateError
from flexrelay.ledger.embedded.validation import Judgement, Policies, Validator
from flexrelay.ledger.port import (
    Call,
    LedgerError,
    LedgerUnavailable,
    NotFound,
    Rejected,
    TxStatus,
)
from flexrelay_contracts.context import Creator, policy_met
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Query, Transaction, invoke, query
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.keys import verify

_LOG = logging.getLogger(__name__)

_KEPT_BYTES = 16_000

Transactions = Mapping[str, Transaction[Any]]
Queries = Mapping[str, Query[Any]]


@dataclass(frozen=True, slots=True)
class Identity:
    """A gateway of an organisation, as the ledger knows it."""

    org: str
    multikey: str
    creator: Creator
    serialised: bytes
    alone: tuple[str, ...]
    """The organisation by itself, as a transaction that names nobody is endorsed."""

    @classmethod
    def of(cls, org: str, multikey: str) -> "Identity":
        return cls(org, multikey, Creator(org, key_identifier(multikey)), creator_bytes(org, multikey), (org,))


class Unsigned(NamedTuple):
    """A prepared transaction that waits for its creator's signature over `message`."""

    tx_id: str
    attestation: bytes
    body: bytes
    message: bytes
    result: Mapping[str, Any]


class Accepted(NamedTuple):
    """An envelope whose creator, signature, attestation, size and time are in order."""

    tx_id: str
    envelope: bytes
    body: wire.Body


@dataclass(frozen=True, slots=True)
class Draft:
    """A judged block, ready to be written."""

    number: int
    hash: bytes
    payload: bytes
    bodies: Sequence[wire.Body]
    judgement: Judgement


class Engine:
    """`state.height` blocks are applied. `clock` gives wall-clock UTC ms."""

    def __init__(
        self,
        genesis: Genesis,
        state: State,
        private: PrivateValues,
        secret: bytes,
        *,
        transactions: Transactions,
        queries: Queries,
        clock: Callable[[], int],
    ) -> None:
        self.genesis = genesis
        self.state = state
        self.private = private
        self.clock = clock
        self._secret = secret
        self._transactions = _Chosen(transactions)
        self._queries = queries
        self._members = {name: tuple(members) for name, members in genesis.collections.items()}
        self._gateways = {key: org.name for org in genesis.organisations for key in org.gateways}
        self._policies = Policies(genesis)
        self._validator = Validator(self._policies, state)
        self._prepared = _Prepared()
        self._discard()

    def identity(self, org: str, multikey: str) -> Identity:
        """Raises Rejected unless the genesis names this key as a gateway of the organisation."""
        if self._gateways.get(multikey) != org:
            raise Rejected(f"the genesis names no gateway of {org} with the key {multikey}")
        return Identity.of(org, multikey)

    def evaluate(self, identity: Identity, function: str, args: Mapping[str, Any]) -> Any:
        """Run a query on the committed state. Raises Refused."""
        simulation = self._simulation(identity, "0" * 64, self.clock(), {}, (identity.org,), read_only=True)
        return self._guarded(function, query, simulation, function, args, self._queries)

    def simulate(self, identity: Identity, call: Call, timestamp: int) -> Unsigned:
        """Execute the intent once. Raises Refused or Rejected; nothing is left behind by either."""
        self._check_time(timestamp, "")
        named = self._named(call.endorsing_orgs) if call.endorsing_orgs else ()
        endorsing = named or identity.alone
        if named and identity.org in named:
            endorsing = (identity.org, *(org for org in named if org != identity.org))
        nonce = os.urandom(24)
        tx_id = transaction_id(nonce, identity.serialised)
        simulation = self._simulation(identity, tx_id, timestamp, dict(call.transient), endorsing)
        self._transactions.name = ""
        result = self._guarded("", invoke, simulation, call.intent, self._transactions)
        function = self._transactions.name
        simulation.finish()
        orgs = endorsing if named else self._endorsers(simulation, endorsing[0], function)
        body: wire.Body = {
            "v": 1,
            "network": self.genesis.network,
            "tx_id": tx_id,
            "nonce": nonce.hex(),
            "creator": [identity.org, identity.multikey],
            "timestamp": timestamp,
            "function": function,
            "intent": wire.b64(call.intent),
            "transient": sorted(call.transient),
            "result": canonical(result).decode(),
            "orgs": [[org, wire.ATTESTED if i else wire.EXECUTED] for i, org in enumerate(orgs)],
            **footprint(simulation),
        }
        encoded = wire.encode_body(body)
        self._check_size(len(wire.MAGIC) + 96 + len(encoded), tx_id)
        if simulation.private_writes:
            self._stage(simulation, tx_id, timestamp)
        attestation = wire.attest(self._secret, encoded)
        message = wire.signing_message(attestation, encoded)
        if len(encoded) <= _KEPT_BYTES:
            self._prepared.add(attestation, _Kept(body, encoded, message))
        return Unsigned(tx_id, attestation, encoded, message, result)

    def _stage(self, simulation: Simulation, tx_id: str, timestamp: int) -> None:
        """Keep the private values that the transaction would write."""
        values = [
            (name, key_hash, key, value)
            for (name, key_hash), (key, value) in sorted(simulation.private_writes.items())
            if value is not None
        ]
        if values:
            self._discard()
            self.private.stage(tx_id, timestamp, values)

    def accept(self, envelope: bytes) -> Accepted:
        """Check an envelope before it is ordered. Raises Rejected."""
        self._check_size(len(envelope), "")
        parts = wire.split(envelope)
        kept = self._prepared.get(parts.attestation)
        if kept is not None and kept.encoded == parts.body:  # the very bytes that were attested with this
            body, message = kept.body, kept.message
        elif wire.attest(self._secret, parts.body) == parts.attestation:
            body, message = wire.decode_body(parts.body), wire.signing_message(parts.attestation, parts.body)
        else:
            raise Rejected("the envelope was not executed by this ledger, or it was changed afterwards")
        tx_id: str = body["tx_id"]
        org, multikey = body["creator"]
        if self._gateways.get(multikey) != org:
            raise Rejected(f"the creator is no gateway of {org}", tx_id)
        if not verify(multikey, parts.signature, message):
            raise Rejected("the envelope's signature is not its creator's", tx_id)
        try:
            self._check_time(body["timestamp"], tx_id)
        except Rejected:
            if self.state.transaction(tx_id) is None:
                raise
        return Accepted(tx_id, envelope, body)

    def draft(self, accepted: Sequence[Accepted]) -> Draft:
        """Judge the next block; the state holds all blocks before it."""
        bodies = [item.body for item in accepted]
        number = self.state.height
        judgement = self._validator.judge(number, bodies, self._prepared.fresh)
        self._prepared.forget([item.tx_id for item in accepted])
        payload, block_hash = encode_block(
            number, self.state.last_hash, judgement.validations, [item.envelope for item in accepted]
        )
        return Draft(number, block_hash, payload, bodies, judgement)

    def apply(self, draft: Draft) -> None:
        """Bring the state to a block that is durable. Raises LedgerUnavailable: the block stands, the state is behind;
        call it again."""
        judgement = draft.judgement
        try:
            apply_private(self.private, draft.number, draft.bodies, judgement)
            self.state.apply(draft.number, draft.hash, judgement.first, judgement.changes)
        except StateError as error:
            raise LedgerUnavailable(f"block {draft.number} is durable but not applied yet: {error}") from error

    def status(self, tx_id: str) -> TxStatus:
        try:
            return self.state.transaction(tx_id) or NotFound(tx_id)
        except ValueError:
            raise LedgerError(f"{tx_id[:80]!r} is not a transaction id (64 hexadecimal digits)") from None

    def _simulation(
        self,
        identity: Identity,
        tx_id: str,
        timestamp: int,
        transient: Mapping[str, bytes],
        endorsing: Sequence[str],
        *,
        read_only: bool = False,
    ) -> Simulation:
        return Simulation(
            self.state,
            self.private,
            tx_id=tx_id,
            tx_time=timestamp,
            creator=identity.creator,
            transient=transient,
            members=self._members,
            endorsing=endorsing,
            read_only=read_only,
        )

    def _guarded(self, function: str, run: Callable[..., Any], *arguments: Any) -> Any:
        """Run contract code; a defect in it is a refusal too: the same call would fail again."""
        try:
            return run(*arguments)
        except (Refused, LedgerError):
            raise
        except Exception as error:
            name = function or self._transactions.name
            _LOG.exception("contract function %s failed", name)
            message = f"{name} failed: {type(error).__name__}: {error}"
            raise Refused("contract_failure", message) from error

    def _named(self, orgs: Sequence[str]) -> tuple[str, ...]:
        for org in orgs:
            if org not in self.genesis.org_names():
                raise Rejected(f"{org} cannot endorse: it is not an organisation of {self.genesis.network}")
        return tuple(sorted(set(orgs)))

    def _endorsers(self, simulation: Simulation, executing: str, function: str) -> tuple[str, ...]:
        """The executing organisation and whom else the policies need, as Fabric's discovery would choose them."""
        policy = self._policies.of(function)
        if not self.state.has_policies and policy.satisfied(frozenset((executing,))):
            return (executing,)
        chosen = [executing]
        readers = [set(self._members[name]) for name in simulation.collections_read]
        for key in sorted({*simulation.writes, *simulation.policies}):
            for term in self.state.policy(key) or ():
                if not policy_met((term,), chosen):
                    able = [org for org in term.split("|") if all(org in members for members in readers)]
                    chosen.append((able or term.split("|"))[0])
        for org in policy.orgs:
            if policy.satisfied(frozenset(chosen)):
                break
            if org not in chosen and all(org in members for members in readers):
                chosen.append(org)
        if not policy.satisfied(frozenset(chosen)):
            raise Rejected(f"no set of organisations may read what {function} reads and meets its endorsement policy")
        return tuple(chosen)

    def _discard(self) -> None:
        """Forget the private values of transactions that can no longer be submitted."""
        self.private.discard(self.clock() - 2 * self.genesis.tx_time_guard_ms)

    def _check_time(self, timestamp: int, tx_id: str) -> None:
        distance = timestamp - self.clock()
        if abs(distance) > self.genesis.tx_time_guard_ms:
            side = "ahead of" if distance > 0 else "behind"
            raise Rejected(
                f"the transaction's timestamp {timestamp} is {abs(distance)} ms {side} the ledger's clock; "
                f"at most {self.genesis.tx_time_guard_ms} ms are allowed",
                tx_id,
            )

    def _check_size(self, size: int, tx_id: str) -> None:
        limit = self.genesis.block_cutting.max_envelope_bytes
        if size > limit:
            raise Rejected(f"the envelope has {size} bytes, at most {limit} are allowed", tx_id)


class _Kept(NamedTuple):
    """A body, its encoded form, and what its creator signs."""

    body: wire.Body
    encoded: bytes
    message: bytes


class _Prepared:
    """What this process prepared last and no block has seen: saves attesting, hashing and parsing a body again and
    looking its id up."""

    _MAX = 4096

    def __init__(self) -> None:
        self.fresh: dict[str, bytes] = {}
        self._kept: dict[bytes, _Kept] = {}

    def add(self, attestation: bytes, kept: _Kept) -> None:
        if len(self.fresh) >= self._MAX:
            self.forget([next(iter(self.fresh))])
        self.fresh[kept.body["tx_id"]] = attestation
        self._kept[attestation] = kept

    def get(self, attestation: bytes) -> _Kept | None:
        """What was kept with this attestation; whether an envelope holds the same body is for the caller to see."""
        return self._kept.get(attestation)

    def forget(self, tx_ids: Sequence[str]) -> None:
        for tx_id in tx_ids:
            attestation = self.fresh.pop(tx_id, None)
            if attestation is not None:
                del self._kept[attestation]


class _Chosen(Mapping[str, Transaction[Any]]):
    """The transactions, remembering which one the runtime asked for last."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self.name = ""

    def __getitem__(self, name: str) -> Transaction[Any]:
        found = self._transactions[name]
        self.name = name
        return found

    def get(self, name: str, default: Any = None) -> Any:
        found = self._transactions.get(name)
        if found is None:
            return default
        self.name = name
        return found

    def __iter__(self) -> Any:
        return iter(self._transactions)

    def __len__(self) -> int:
        return len(self._transactions)


def apply_private(private: PrivateValues, number: int, bodies: Sequence[wire.Body], judgement: Judgement) -> None:
    """Move or purge the private values of a block, once. Raises LedgerUnavailable."""
    touching = [body["tx_id"] for body in bodies if body["private"]]
    if touching and private.height <= number:
        private.apply(number, touching, judgement.private)
