"""Runs contracts against a small state in memory: every transaction twice, and the two write sets must be equal."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from flexrelay_contracts.catalogue import QUERIES, TRANSACTIONS
from flexrelay_contracts.context import Creator, Page, policy_terms
from flexrelay_contracts.runtime import invoke, query
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import Create, Rotate, key_hash, operation_message
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.intent import Intent, SignedIntent
from flexrelay_schemas.keys import multikey

NETWORK = "test"
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def sign(private: PrivateKey, message: bytes) -> str:
    """base64url signature of 64 bytes, as on the wire."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return b64u(private.sign(message))
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA256())))
    return b64u(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


@dataclass
class Party:
    """A DID with its keys: `private` signs now, `next_private` is the pre-rotated one."""

    kind: str
    private: PrivateKey
    next_private: PrivateKey
    operation: Create
    version: int = 1
    last_hash: str = ""
    """Hash of the last operation of the log; empty: the create operation's."""

    @classmethod
    def new(cls, kind: str = "actor", controller: str = "", *, network: str = NETWORK, p256: bool = True) -> "Party":
        def make() -> PrivateKey:
            return ec.generate_private_key(ec.SECP256R1()) if p256 else ed25519.Ed25519PrivateKey.generate()

        private, following = make(), make()
        operation = Create(
            network=network,
            kind=kind,  # type: ignore[arg-type]
            controller=controller,
            key=multikey(private.public_key()),
            next_key_hash=key_hash(multikey(following.public_key())),
            nonce=secrets.token_hex(16),
        )
        return cls(kind, private, following, operation)

    @property
    def did(self) -> str:
        return self.operation.did()

    def proven(self, operation: Create | Rotate | None = None) -> dict[str, Any]:
        """{operation, proof}: the create operation (or another one) signed with the current key."""
        chosen = operation or self.operation
        return {"operation": chosen.model_dump(), "proof": sign(self.private, operation_message(chosen))}

    def intent(self, function: str, args: Mapping[str, Any], *, deadline: int, intent_id: str = "") -> bytes:
        intent = Intent(
            network=self.operation.network,
            actor=self.did,
            key_version=self.version,
            intent_id=intent_id or secrets.token_hex(8),
            function=function,
            args=dict(args),
            deadline=deadline,
        )
        return SignedIntent(intent=intent, signature=sign(self.private, intent.message())).encode()


@dataclass
class MemoryContext:
    """A ContractContext whose writes are collected and not visible to its own reads."""

    ledger: "MemoryLedger"
    tx_id: str
    tx_time: int
    creator: Creator
    transient: Mapping[str, bytes]
    writes: dict[str, bytes | None] = field(default_factory=dict)
    private_writes: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    policies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    paged: bool = False

    def get(self, key: str) -> bytes | None:
        return self.ledger.state.get(key)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def put(self, key: str, value: bytes) -> None:
        assert value, f"empty value under {key!r}"
        assert not self.paged, "write after a paged range query"
        self.writes[key] = value

    def delete(self, key: str) -> None:
        self.writes[key] = None

    def range(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        low, high = start.encode(), end.encode()
        names = sorted(n.encode() for n in self.ledger.state if low <= n.encode() < high)
        return [(name.decode(), self.ledger.state[name.decode()]) for name in names]

    def range_page(self, start: str, end: str, size: int, bookmark: str = "") -> Page:
        self.paged = True
        items = list(self.range(bookmark or start, end))
        return Page(tuple(items[:size]), items[size][0] if len(items) > size else "")

    def emit(self, name: str, payload: bytes) -> None:
        self.events.append((name, payload))

    def get_private(self, collection: str, key: str) -> bytes | None:
        return self.ledger.private.get((collection, key))

    def get_private_hash(self, collection: str, key: str) -> str | None:
        value = self.get_private(collection, key)
        return None if value is None else hashlib.sha256(value).hexdigest()

    def put_private(self, collection: str, key: str, value: bytes) -> None:
        self.private_writes[collection, key] = value

    def purge_private(self, collection: str, key: str) -> None:
        self.private_writes[collection, key] = None

    def set_key_policy(self, key: str, orgs: Sequence[str], one_of: Sequence[str] = ()) -> None:
        self.policies[key] = policy_terms(orgs, one_of)


@dataclass
class MemoryLedger:
    """State of the tests' network. `now` is the wall clock in UTC ms and moves only when a test moves it."""

    state: dict[str, bytes] = field(default_factory=dict)
    private: dict[tuple[str, str], bytes] = field(default_factory=dict)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    now: int = 1_700_000_000_000
    count: int = 0
    used: set[str] = field(default_factory=set)
    """Names of the transaction types that ran (so that a test can say that all of them did)."""

    def run(self, intent: bytes, creator: Creator, transient: Mapping[str, bytes] | None = None) -> Mapping[str, Any]:
        """Execute twice, compare, apply. Raises Refused (state untouched)."""
        self.count += 1
        tx_id = hashlib.sha256(f"{self.count}".encode()).hexdigest()
        first, second = (MemoryContext(self, tx_id, self.now, creator, dict(transient or {})) for _ in range(2))
        result = invoke(first, intent, TRANSACTIONS)
        again = invoke(second, intent, TRANSACTIONS)
        assert canonical(dict(result)) == canonical(dict(again))
        assert list(first.writes.items()) == list(second.writes.items())
        assert list(first.private_writes.items()) == list(second.private_writes.items())
        assert first.events == second.events
        for key, value in first.writes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        for place, value in first.private_writes.items():
            if value is None:
                self.private.pop(place, None)
            else:
                self.private[place] = value
        self.events.extend(first.events)
        return result

    def call(self, party: Party, function: str, creator: Creator, **args: Any) -> Mapping[str, Any]:
        """Sign and run one transaction with a deadline one minute from now."""
        self.used.add(function)
        return self.run(party.intent(function, args, deadline=self.now + 60_000), creator)

    def ask(self, function: str, **args: Any) -> Any:
        """Run a query."""
        context = MemoryContext(self, "0" * 64, self.now, Creator("", ""), {})
        value = query(context, function, args, QUERIES)
        assert not context.writes
        return value
