"""The contract context over a peer: reads are asked for, writes are collected and go at the end.

The rules and the codes of refusals are those of the embedded ledger, so that a contract cannot tell the two apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from flexrelay_chaincode import wire
from flexrelay_chaincode.failure import Rejected
from flexrelay_chaincode.proposal import Invocation
from flexrelay_chaincode.wire import Announced
from flexrelay_chaincode.writes import Writes
from flexrelay_contracts.context import MAX_UNICODE, Creator, Page, policy_terms
from flexrelay_contracts.refusal import Refused

_LEAST_QUERY_LIMIT: Final = 100
"""A peer may end a range silently at its `totalQueryLimit`; it is taken to be at least this."""


class Peer(Protocol):
    """The way to the peer for one call: one request at a time."""

    @property
    def open(self) -> bool:
        """Whether the call still runs."""
        ...

    def ask(self, kind: int, payload: bytes) -> bytes:
        """The payload of the peer's RESPONSE. Raises Rejected for an ERROR, at the deadline, at the stream's end."""
        ...


class FabricContext:
    """`org` is the organisation whose peer runs this; `members` maps collections to their member organisations."""

    def __init__(
        self,
        peer: Peer,
        announced: Announced,
        invocation: Invocation,
        *,
        org: str,
        members: Mapping[str, tuple[str, ...]],
        read_only: bool,
    ) -> None:
        self._peer = peer
        self._announced = announced
        self._invocation = invocation
        self._org = org
        self._members = members
        self._read_only = read_only
        self._paged = False
        self._transient: Mapping[str, bytes] | None = None
        self._present: dict[str, bool] = {}
        self.writes = Writes()
        self.events: list[tuple[str, bytes]] = []

    @property
    def tx_id(self) -> str:
        return self._invocation.tx_id

    @property
    def tx_time(self) -> int:
        return self._invocation.time_ms

    @property
    def creator(self) -> Creator:
        return self._invocation.creator

    @property
    def transient(self) -> Mapping[str, bytes]:
        if self._transient is None:
            self._transient = self._invocation.transient()
        return self._transient

    def get(self, key: str) -> bytes | None:
        return self._read(_name(key)) if key else None

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        size = self._announced.get_multiple
        if not size:
            return [self.get(key) for key in keys]
        wanted = [_name(key) for key in dict.fromkeys(keys) if key]
        found: dict[str, bytes | None] = {}
        for position in range(0, len(wanted), size):
            piece = wanted[position : position + size]
            if len(piece) == 1:
                found[piece[0]] = self._read(piece[0])
                continue
            request = wire.GetStateMultiple(keys=piece).SerializeToString()
            answer = self._peer.ask(wire.ChaincodeMessage.GET_STATE_MULTIPLE, request)
            values = wire.GetStateMultipleResult.FromString(answer).values
            if len(values) != len(piece):
                raise Rejected("peer_error", f"the peer gave {len(values)} values for {len(piece)} keys")
            for key, value in zip(piece, values, strict=True):
                found[key] = value or None
                self._present[key] = bool(value)
        return [found[key] if key else None for key in keys]

    def put(self, key: str, value: bytes) -> None:
        self._may_write(key)
        if not value:
            raise Refused("empty_value", f"an empty value cannot be put under {key!r}; delete the key instead")
        self.writes.public[_name(key)] = bytes(value)

    def delete(self, key: str) -> None:
        self._may_write(key)
        self.writes.public[_name(key)] = None

    def range(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        return _Range(self._peer, min(start, MAX_UNICODE), min(end, MAX_UNICODE))

    def range_page(self, start: str, end: str, size: int, bookmark: str = "") -> Page:
        if size < 1:
            raise ValueError(f"a page has at least one entry, not {size}")
        if self.writes:
            raise Refused("paged_query_after_write", "a transaction that has written may not ask for pages")
        self._paged = True
        first, end = min(bookmark or start, MAX_UNICODE), min(end, MAX_UNICODE)
        items: list[tuple[str, bytes]] = []
        while first < end and len(items) < size:
            found, first = self._page(first, end, size - len(items))
            items += found
            if not first:
                return Page(tuple(items))
        return Page(tuple(items), first if first < end else "")

    def emit(self, name: str, payload: bytes) -> None:
        self.events.append((name, bytes(payload)))

    def get_private(self, collection: str, key: str) -> bytes | None:
        if self._org not in self._known(collection):
            raise Refused("private_not_member", f"{self._org} is not a member of the private collection {collection}")
        request = wire.GetState(key=_name(key), collection=collection).SerializeToString()
        return self._peer.ask(wire.ChaincodeMessage.GET_STATE, request) or None

    def get_private_hash(self, collection: str, key: str) -> str | None:
        self._known(collection)
        request = wire.GetState(key=_name(key), collection=collection).SerializeToString()
        return self._peer.ask(wire.ChaincodeMessage.GET_PRIVATE_DATA_HASH, request).hex() or None

    def put_private(self, collection: str, key: str, value: bytes) -> None:
        self._may_write(key)
        self._known(collection)
        if not value:
            raise Refused("empty_value", f"an empty value cannot be put into {collection} under {key!r}")
        self.writes.private[collection, _name(key)] = bytes(value)

    def purge_private(self, collection: str, key: str) -> None:
        self._may_write(key)
        self._known(collection)
        self.writes.private[collection, _name(key)] = None

    def set_key_policy(self, key: str, orgs: Sequence[str], one_of: Sequence[str] = ()) -> None:
        self._may_write(key)
        self.writes.policies[_name(key)] = policy_terms(orgs, one_of)

    def finish(self) -> None:
        """The last check before the writes go. Raises Refused for a key policy on a key that does not exist."""
        for key in self.writes.policies:
            written = self.writes.public.get(key)
            exists = written is not None if key in self.writes.public else self._exists(key)
            if not exists:
                raise Refused("policy_without_key", f"{key!r} does not exist, so it cannot have a policy")

    def _read(self, key: str) -> bytes | None:
        request = wire.GetState(key=key).SerializeToString()
        value = self._peer.ask(wire.ChaincodeMessage.GET_STATE, request) or None
        self._present[key] = value is not None
        return value

    def _exists(self, key: str) -> bool:
        known = self._present.get(key)
        return self._read(key) is not None if known is None else known

    def _page(self, start: str, end: str, size: int) -> tuple[list[tuple[str, bytes]], str]:
        """At most `size` entries from `start` on, and where the next page begins (empty: there is none)."""
        metadata = wire.QueryMetadata(pageSize=size).SerializeToString()
        request = wire.GetStateByRange(startKey=start, endKey=end, metadata=metadata).SerializeToString()
        answer = wire.QueryResponse.FromString(self._peer.ask(wire.ChaincodeMessage.GET_STATE_BY_RANGE, request))
        bookmark: str = wire.QueryResponseMetadata.FromString(answer.metadata).bookmark
        return _entries(answer), bookmark

    def _known(self, collection: str) -> tuple[str, ...]:
        members = self._members.get(collection)
        if members is None:
            raise Refused("unknown_collection", f"the network names no private collection {collection}")
        return members

    def _may_write(self, key: str) -> None:
        if self._read_only:
            raise Refused("query_writes", f"a query may not write {key!r}")
        if self._paged:
            raise Refused("write_after_paged_query", f"no write of {key!r} after a paged range query")
        if not key:
            raise Refused("empty_key", "a key has at least one character")


class _Range:
    """Asks when it is iterated. The peer ends a long range silently at its limit, so the end is asked for once more
    from behind the last key: what the limit cut off follows, and the protection against phantoms goes on with it."""

    def __init__(self, peer: Peer, start: str, end: str) -> None:
        self._peer = peer
        self._start, self._end = start, end

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        start = self._start
        while start < self._end:
            count, last = 0, start
            for last, value in self._once(start):
                yield last, value
                count += 1
            if count < _LEAST_QUERY_LIMIT:
                return
            start = last + "\x00"

    def _once(self, start: str) -> Iterator[tuple[str, bytes]]:
        message = wire.ChaincodeMessage
        request = wire.GetStateByRange(startKey=start, endKey=self._end).SerializeToString()
        answer = wire.QueryResponse.FromString(self._peer.ask(message.GET_STATE_BY_RANGE, request))
        try:
            while True:
                yield from _entries(answer)
                if not answer.has_more:
                    return
                following = wire.QueryStateNext(id=answer.id).SerializeToString()
                answer = wire.QueryResponse.FromString(self._peer.ask(message.QUERY_STATE_NEXT, following))
        finally:
            if answer.has_more and self._peer.open:
                self._peer.ask(message.QUERY_STATE_CLOSE, wire.QueryStateClose(id=answer.id).SerializeToString())


def _entries(answer: Any) -> list[tuple[str, bytes]]:
    found = (wire.KV.FromString(result.resultBytes) for result in answer.results)
    return [(entry.key, entry.value) for entry in found]


def _name(key: str) -> str:
    """The key, when a contract may use it. Raises Refused('bad_key')."""
    if key.startswith(MAX_UNICODE):
        raise Refused("bad_key", "a key may not begin with U+10FFFF")
    return key
