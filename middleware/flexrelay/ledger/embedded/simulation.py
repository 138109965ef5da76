"""One execution of a contract: reads the committed state, records what it read, collects what it would write."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from flexrelay.ledger.embedded.envelope import b64
from flexrelay.ledger.embedded.overlay import StateView
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.state import Entry, Version, hash_key
from flexrelay.ledger.port import LedgerError
from flexrelay_contracts.context import MAX_UNICODE, Creator, Page, policy_terms
from flexrelay_contracts.refusal import Refused

READ_AHEAD: Final = 100
"""Entries of a range that are fetched at once (Fabric's `maxResultLimit`), one more beside them."""


class RangeDigest:
    """Count and SHA-256 over the keys and versions of a range, in order: equal exactly when nothing in it changed."""

    def __init__(self) -> None:
        self.count = 0
        self._sha = hashlib.sha256()

    def add(self, key: str, block: int, tx: int) -> None:
        name = key.encode()
        self._sha.update(b"%d:%s%d:%d;" % (len(name), name, block, tx))
        self.count += 1

    def hex(self) -> str:
        return self._sha.hexdigest()


class Simulation:
    """The contract context of one transaction or query. Nothing it does touches the ledger.

    `members` maps each private collection to its member organisations; `endorsing` are the organisations in whose name
    the contract runs: each of them must be a member of a collection that is read.
    """

    def __init__(
        self,
        state: StateView,
        private: PrivateValues,
        *,
        tx_id: str,
        tx_time: int,
        creator: Creator,
        transient: Mapping[str, bytes],
        members: Mapping[str, tuple[str, ...]],
        endorsing: Sequence[str],
        read_only: bool = False,
    ) -> None:
        self._state = state
        self._private = private
        self._members = members
        self._endorsing = endorsing
        self._read_only = read_only
        self._paged = False
        self.tx_id = tx_id
        self.tx_time = tx_time
        self.creator = creator
        self.transient = transient
        self.reads: dict[str, Version | None] = {}
        self.private_reads: dict[tuple[str, str], Version | None] = {}
        self.ranges: list[tuple[str, str, int, str]] = []
        self.writes: dict[str, bytes | None] = {}
        self.private_writes: dict[tuple[str, str], tuple[str, bytes | None]] = {}
        self.policies: dict[str, tuple[str, ...]] = {}
        self.events: list[tuple[str, bytes]] = []
        self.collections_read: set[str] = set()
        self._open: list[_Range] = []

    def get(self, key: str) -> bytes | None:
        if key[:1] == MAX_UNICODE:
            _name(key)
        entry = self._state.get(key)
        if entry is None:
            self.reads[key] = None
            return None
        value, block, tx, _ = entry
        self.reads[key] = (block, tx)
        return value

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def put(self, key: str, value: bytes) -> None:
        self._may_write(key)
        if not value:
            raise Refused("empty_value", f"an empty value cannot be put under {key!r}; delete the key instead")
        self.writes[_name(key)] = bytes(value)

    def delete(self, key: str) -> None:
        self._may_write(key)
        self.writes[_name(key)] = None

    def range(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        found = _Range(self._state, _bound(start), _bound(end))
        self._open.append(found)
        return found

    def range_page(self, start: str, end: str, size: int, bookmark: str = "") -> Page:
        if size < 1:
            raise ValueError(f"a page has at least one entry, not {size}")
        if self.writes or self.private_writes or self.policies:
            raise Refused("paged_query_after_write", "a transaction that has written may not ask for pages")
        self._paged = True
        items: list[tuple[str, bytes]] = []
        for key, entry in self._state.range(_bound(bookmark or start), _bound(end)):
            if len(items) == size:
                return Page(tuple(items), key)
            items.append((key, entry.value))
        return Page(tuple(items))

    def emit(self, name: str, payload: bytes) -> None:
        self.events.append((name, bytes(payload)))

    def get_private(self, collection: str, key: str) -> bytes | None:
        self._may_read(collection)
        self.collections_read.add(collection)
        key_hash = _sha(_name(key).encode())
        if self._note_private(collection, key_hash) is None:
            return None
        value = self._private.get(collection, key)
        if value is None:
            raise LedgerError(f"{collection}: a private value whose hash is on the ledger is missing here", self.tx_id)
        return value

    def get_private_hash(self, collection: str, key: str) -> str | None:
        self._known(collection)
        value_hash = self._note_private(collection, _sha(_name(key).encode()))
        return None if value_hash is None else value_hash.hex()

    def put_private(self, collection: str, key: str, value: bytes) -> None:
        self._may_write(key)
        self._known(collection)
        if not value:
            raise Refused("empty_value", f"an empty value cannot be put into {collection} under {key!r}")
        self.private_writes[collection, _sha(_name(key).encode())] = (key, bytes(value))

    def purge_private(self, collection: str, key: str) -> None:
        self._may_write(key)
        self._known(collection)
        self.private_writes[collection, _sha(_name(key).encode())] = (key, None)

    def set_key_policy(self, key: str, orgs: Sequence[str], one_of: Sequence[str] = ()) -> None:
        self._may_write(key)
        self.policies[_name(key)] = policy_terms(orgs, one_of)

    def finish(self) -> None:
        """Close the ranges that are still open. Raises Refused for a key policy on a key that does not exist."""
        self.ranges = [found.record() for found in self._open]
        for key in self.policies:
            exists = self.writes[key] is not None if key in self.writes else self._state.get(key) is not None
            if not exists:
                raise Refused("policy_without_key", f"{key!r} does not exist, so it cannot have a policy")

    def _note_private(self, collection: str, key_hash: str) -> bytes | None:
        entry = self._state.get(hash_key(collection, key_hash))
        self.private_reads[collection, key_hash] = None if entry is None else (entry.block, entry.tx)
        return None if entry is None else entry.value

    def _known(self, collection: str) -> tuple[str, ...]:
        members = self._members.get(collection)
        if members is None:
            raise Refused("unknown_collection", f"the genesis names no private collection {collection}")
        return members

    def _may_read(self, collection: str) -> None:
        members = self._known(collection)
        for org in self._endorsing:
            if org not in members:
                raise Refused("private_not_member", f"{org} is not a member of the private collection {collection}")

    def _may_write(self, key: str) -> None:
        if self._read_only:
            raise Refused("query_writes", f"a query may not write {key!r}")
        if self._paged:
            raise Refused("write_after_paged_query", f"no write of {key!r} after a paged range query")
        if not key:
            raise Refused("empty_key", "a key has at least one character")


class _Range:
    """Iterates a range and records what was fetched for it, which may be more than was asked for.

    Fabric's peer hands out a range in batches, each one only after a look at the entry behind it. Here it is the same,
    so that a contract which stops early conflicts alike on both: what was fetched is protected, to its last key.
    """

    def __init__(self, state: StateView, start: str, end: str) -> None:
        self._state = state
        self._start, self._end = start, end
        self._fetched: list[tuple[str, int, int]] = []
        self._exhausted = False

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        rows = self._state.range(self._start, self._end)
        behind: list[tuple[str, Entry]] = []
        position, more = 0, True
        while more:
            fresh = list(islice(rows, READ_AHEAD + 1 - len(behind)))
            self._note(position, fresh)
            position += len(fresh)
            batch = behind + fresh
            more = len(batch) > READ_AHEAD
            self._exhausted = self._exhausted or not more
            behind = batch[READ_AHEAD:]
            for key, entry in batch[:READ_AHEAD]:
                yield key, entry.value

    def _note(self, position: int, fresh: list[tuple[str, Entry]]) -> None:
        """Add what an iteration fetched, unless one before it did."""
        known = len(self._fetched) - position
        self._fetched += [(key, entry.block, entry.tx) for key, entry in fresh[max(known, 0) :]]

    def record(self) -> tuple[str, str, int, str]:
        """(start, end, count, digest) as it goes into the read set."""
        stopped = self._fetched[-1][0] + "\x00" if self._fetched else self._start
        end = self._end if self._exhausted else stopped
        digest = RangeDigest()
        for key, block, tx in self._fetched:
            digest.add(key, block, tx)
        return self._start, end, digest.count, digest.hex()


def _name(key: str) -> str:
    """The key, when a contract may use it. Raises Refused('bad_key')."""
    if key.startswith(MAX_UNICODE):
        raise Refused("bad_key", "a key may not begin with U+10FFFF")
    return key


def footprint(simulation: Simulation) -> dict[str, Any]:
    """What the execution read, wrote and announced, as it stands in an envelope's body. All but the events sorted."""
    return {
        "events": [[name, b64(payload)] for name, payload in simulation.events],
        "policies": [[key, list(terms)] for key, terms in sorted(simulation.policies.items())],
        "private": _private_writes(simulation) if simulation.private_writes else [],
        "private_reads": [[*place, *(version or ())] for place, version in sorted(simulation.private_reads.items())],
        "ranges": [list(found) for found in simulation.ranges],
        "reads": [[key] if version is None else [key, *version] for key, version in sorted(simulation.reads.items())],
        "writes": [[key, None if value is None else b64(value)] for key, value in sorted(simulation.writes.items())],
    }


def _private_writes(simulation: Simulation) -> list[list[str | None]]:
    return sorted(
        (
            [name, key_hash, None if value is None else _sha(value)]
            for (name, key_hash), (_, value) in simulation.private_writes.items()
        ),
        key=lambda row: row[:2],
    )


def _bound(key: str) -> str:
    return min(key, MAX_UNICODE)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
