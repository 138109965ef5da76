"""Whether a peer's state is new enough to be believed: it holds at least every block that this gateway has seen.

A peer that is behind answers with a state that was true once: what it refuses may be allowed by now, what it does not
find may have been written. Only this gateway's own height can be asked of it: what no followed block shows, a write of
another organisation just now, nobody here knows of.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.errors import Behind
from flexrelay.ledger.fabric.failures import Detail, Failure, contract_failures, execution_error, refusals
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.messages import BlockchainInfo, EvaluateRequest, SignedProposal
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.fabric.proposal import propose
from flexrelay.ledger.port import LedgerError, LedgerUnavailable
from flexrelay_sdk.clock import wall_ms

_ANSWER_S: Final = 5.0
_REMEMBERED_S: Final = 10.0
"""A ledger only grows, but a peer may be restored from an older copy."""


class Sight(Protocol):
    """What has been seen of the chain."""

    @property
    def seen(self) -> int:
        """How many blocks so far."""
        ...

    @property
    def shown(self) -> Mapping[str, int]:
        """A peer's address → how many blocks it certainly has."""
        ...


@dataclass(frozen=True, slots=True)
class Unseen:
    """Before anything is followed every peer is good enough."""

    seen: int = 0
    shown: Mapping[str, int] = field(default_factory=dict)


class Currency:
    """Asks peers for their height when it is not known to be enough."""

    def __init__(self, channel: str, identity: Identity, pool: PeerPool) -> None:
        self._channel = channel
        self._identity = identity
        self._pool = pool
        self._heights: dict[str, tuple[int, float]] = {}
        self.sight: Sight = Unseen()

    def holding(self) -> "Holding":
        """To be taken before the call whose refusal is to be judged."""
        seen = self.sight.seen
        addresses = [*self.sight.shown, *self._heights]
        return Holding(self, seen, {address for address in addresses if self._known(address) >= seen})

    def _known(self, address: str) -> int:
        """How many blocks the peer has at least."""
        height, when = self._heights.get(address, (0, 0.0))
        if time.monotonic() - when > _REMEMBERED_S:
            height = 0
        return max(height, self.sight.shown.get(address, 0))

    async def demand(self, peer: PeerChannel, seen: int) -> None:
        """Raises Behind when the peer has fewer blocks than `seen`, LedgerUnavailable when it does not say."""
        if self._known(peer.address) >= seen:
            return
        height = await self.height(peer)
        if height < seen:
            raise Behind(f"peer {peer.address} of {peer.org} has {height} blocks, and {seen} have been seen")

    async def height(self, peer: PeerChannel) -> int:
        """How many blocks this very peer has. Raises LedgerError."""
        try:
            response = (await peer.execute(await self._question(), _ANSWER_S)).response
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # only its gateway service can be reached from here
                return await self._by_gateway(peer.org, peer)
            raise self._failed(error, peer) from None
        if response.status != 200:
            raise LedgerUnavailable(f"peer {peer.address} does not tell its height: {response.message[:200]}")
        found = _height(response.payload)
        self._heights[peer.address] = found, time.monotonic()
        return found

    async def height_of(self, executor: Detail, by: PeerChannel) -> int:
        """Of a peer that another one named: asked itself when the profile has it, otherwise through that other one,
        which then asks the organisation's peer that it also lets execute."""
        named = self._pool.at(executor.address)
        if named is not None:
            try:
                return await self.height(named)
            except LedgerUnavailable:
                pass  # it may be out of reach from here
        return await self._by_gateway(executor.org, by)

    async def _by_gateway(self, org: str, by: PeerChannel) -> int:
        request = EvaluateRequest(
            channel_id=self._channel,
            proposed_transaction=await self._question(),
            target_organizations=[org],
        )
        try:
            return _height((await by.evaluate(request, _ANSWER_S)).result.payload)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error, by) from None

    async def _question(self) -> Any:
        args = [b"GetChainInfo", self._channel.encode()]
        data = propose(self._channel, "qscc", args, self._identity.creator, wall_ms()).data
        return SignedProposal(proposal_bytes=data, signature=await self._identity.sign(data))

    def _failed(self, error: grpc.aio.AioRpcError, peer: PeerChannel) -> LedgerError:
        failure = Failure.of(error, peer.address)
        if failure.peer_failed:
            self._pool.failed(peer, failure.message, hangs=failure.hangs)
        found = execution_error(failure)
        return found if isinstance(found, LedgerError) else LedgerUnavailable(str(found))


@dataclass(slots=True)
class Holding:
    """Which peers (by address) certainly held the first `seen` blocks before a call."""

    currency: Currency
    seen: int
    peers: set[str]

    def believes(self, failure: Failure, peer: PeerChannel) -> bool:
        """Whether one that refused held them."""
        return not self.seen or any(executor.address in self.peers for executor in _executors(failure, peer))

    async def catch_up(self, failure: Failure, peer: PeerChannel, *, last: bool) -> None:
        """Ask those that refused. Raises Behind when none holds the blocks, or when it was the `last` try; otherwise
        the refusal of those that do is to be believed the next time."""
        told = []
        for executor in _executors(failure, peer):
            height = await self.currency.height_of(executor, peer)
            told.append(f"{executor.address} of {executor.org} has {height}")
            if height >= self.seen:
                self.peers.add(executor.address)
        if last or not any(executor.address in self.peers for executor in _executors(failure, peer)):
            said = "; ".join(f"{item.code}: {item.message}" for item in contract_failures(failure)[:1])
            raise Behind(f"refused ({said}) by peers that may be behind: {self.seen} blocks seen, {', '.join(told)}")


def _executors(failure: Failure, peer: PeerChannel) -> list[Detail]:
    """Who refused for good: as the peer that was called says, or it itself."""
    return refusals(failure) or [Detail(peer.org, peer.address, "")]


def _height(data: bytes) -> int:
    try:
        found: int = BlockchainInfo.FromString(data).height
    except DecodeError:
        raise LedgerUnavailable("a peer's height cannot be read") from None
    return found
