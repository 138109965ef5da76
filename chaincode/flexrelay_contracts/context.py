"""What a contract sees of the ledger. The semantics are Fabric's, on every ledger:

- a read gives the committed state and never the transaction's own writes;
- versions of what was read are checked again at commit (MVCC), ranges that were read are phantom-protected;
- no write after a paged range query in one transaction; an empty value cannot be put;
- range and composite keys are ordered by the bytes of their UTF-8 form.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MIN_UNICODE = "\x00"
MAX_UNICODE = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Creator:
    """Who signed the ledger transaction: an organisation's gateway, by the hex SHA-256 of its public key (SKI)."""

    org: str
    identity: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a range: (key, value) pairs in key order; `bookmark` is empty on the last page."""

    items: tuple[tuple[str, bytes], ...]
    bookmark: str = ""


class ContractContext(Protocol):
    """The context port; see the module's text for its promises."""

    @property
    def tx_id(self) -> str: ...

    @property
    def tx_time(self) -> int:
        """The transaction's timestamp: wall-clock UTC milliseconds, set by the client, guarded by the runtime."""
        ...

    @property
    def creator(self) -> Creator: ...

    def get(self, key: str) -> bytes | None: ...

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]: ...

    def put(self, key: str, value: bytes) -> None: ...

    def delete(self, key: str) -> None: ...

    def range(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        """All keys in [start, end). Phantom-protected at least as far as it was read: what a ledger fetched ahead
        is protected too."""
        ...

    def range_page(self, start: str, end: str, size: int, bookmark: str = "") -> Page:
        """One page of [start, end): for queries; a transaction that has called this may not write."""
        ...

    def emit(self, name: str, payload: bytes) -> None:
        """Add an event; the events of a transaction are delivered in this order once it is committed as valid."""
        ...

    def get_private(self, collection: str, key: str) -> bytes | None:
        """Only where the executing organisation is a member; otherwise a Refused('private_not_member')."""
        ...

    def get_private_hash(self, collection: str, key: str) -> str | None:
        """Hex SHA-256 of the private value: every organisation has it."""
        ...

    def put_private(self, collection: str, key: str, value: bytes) -> None: ...

    def purge_private(self, collection: str, key: str) -> None:
        """Delete the value and its history everywhere; the hash of what was there stays in the chain."""
        ...

    @property
    def transient(self) -> Mapping[str, bytes]:
        """Inputs that do not go on the chain."""
        ...

    def set_key_policy(self, key: str, orgs: Sequence[str], one_of: Sequence[str] = ()) -> None:
        """From now on a write of `key` needs the endorsement of all `orgs`, and of one of `one_of` where it names any
        (state-based endorsement). Neither: the key has no policy of its own any more."""
        ...


def policy_terms(orgs: Sequence[str], one_of: Sequence[str] = ()) -> tuple[str, ...]:
    """A key's policy in one canonical form: each term names an organisation, or several ("a|b") of which one endorses.

    Raises ValueError for a name with "|".
    """
    if any("|" in org for org in (*orgs, *one_of)):
        raise ValueError("an organisation's name holds no |")
    terms = sorted(set(orgs))
    others = sorted(set(one_of))
    if others and not set(others).intersection(terms):
        terms.append("|".join(others))
    return tuple(terms)


def policy_met(terms: Iterable[str], endorsing: Iterable[str]) -> bool:
    """Whether these organisations' endorsements meet a key's policy."""
    named = set(endorsing)
    return all(not named.isdisjoint(term.split("|")) for term in terms)


def composite_key(kind: str, *attributes: str) -> str:
    """Fabric's composite key: \\x00 kind \\x00 attribute \\x00 … Raises ValueError for reserved characters."""
    joined = MIN_UNICODE.join(("", kind, *attributes, ""))
    if joined.count(MIN_UNICODE) != len(attributes) + 2 or MAX_UNICODE in joined:
        wrong = next(part for part in (kind, *attributes) if MIN_UNICODE in part or MAX_UNICODE in part)
        raise ValueError(f"a key part holds a reserved character: {wrong!r}")
    return joined


def prefix_range(kind: str, *attributes: str) -> tuple[str, str]:
    """(start, end) of all composite keys that begin with these parts."""
    start = composite_key(kind, *attributes)
    return start, start + MAX_UNICODE


def split_key(key: str) -> tuple[str, ...]:
    """The parts of a composite key, its kind first."""
    return tuple(key[1:-1].split(MIN_UNICODE))
