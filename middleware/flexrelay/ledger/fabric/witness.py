"""A second opinion: another organisation's peer is asked now and then whether it has the same blocks, judged alike.

Orderers' signatures prove what was ordered, but how a transaction was judged is each peer's own word. Every peer chains
a hash over all judgements and state changes (the commit hash); two honest peers have the same one. So one comparison of
the newest block covers everything before it. A peer that holds back blocks is found by what others have after it.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc.aio

from flexrelay.ledger.fabric import deliver
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.follower import Follower, Proof, proof_of
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.port import LedgerError

_LOG = logging.getLogger(__name__)
_ANSWER_S = 5.0
_ASKED = 2


class Witness:
    """Compares what the follower was told with what others' peers say. `trouble` is "" while they agree."""

    def __init__(
        self,
        channel: str,
        identity: Identity,
        pool: PeerPool,
        follower: Follower,
        clock: Callable[[], int],
        every_s: float,
    ) -> None:
        self._channel = channel
        self._identity = identity
        self._pool = pool
        self._follower = follower
        self._clock = clock
        self._every_s = every_s
        self.trouble = ""

    async def run(self) -> None:
        """Until cancelled. Without another organisation's peer in the profile there is nobody to ask."""
        while self._pool.others():
            await asyncio.sleep(self._every_s)
            try:
                await self.compare()
            except (LedgerError, grpc.aio.UsageError) as error:
                _LOG.info("no second opinion this time: %s", error)
            except Exception:
                _LOG.exception("asking for a second opinion on %s failed", self._channel)

    async def compare(self) -> None:
        """Ask up to two other organisations' peers for the newest followed block, and for the one after it."""
        ours = self._follower.newest
        peer = self._follower.peer
        if ours is None or peer is None:
            return
        others: list[Proof] = []
        for other in self._one_of_each(peer.org):
            block = await self._block(other, ours.number)
            if block is None:
                continue
            theirs = proof_of(block)
            if theirs == ours:
                if await self._ahead(other, ours):
                    self._follower.leave(peer, f"{other.address} of {other.org} has blocks that it does not send")
                return
            others.append(theirs)
            self.trouble = (
                f"block {ours.number}: peer {peer.address} of {peer.org} and peer {other.address} of {other.org} "
                "disagree on it or a block before it (hash, or validation of transactions): compare their ledgers"
            )
            _LOG.error("%s", self.trouble)
        if len(others) > 1 and len(set(others)) == 1:
            self._pool.lied(peer, self.trouble)
            self._follower.leave(peer, "the other organisations' peers agree with each other, and not with it")

    def _one_of_each(self, org: str) -> list[PeerChannel]:
        """A peer of each other organisation, at most two: one organisation has one voice."""
        found: dict[str, PeerChannel] = {}
        for item in self._pool.order():
            if item.org != org:
                found.setdefault(item.org, item)
        return list(found.values())[:_ASKED]

    async def _ahead(self, other: PeerChannel, ours: Proof) -> bool:
        """Whether the other peer has had a next block for a while that was not sent to us."""
        if await self._block(other, ours.number + 1, timeout_s=0.2) is None:
            return False
        await asyncio.sleep(_ANSWER_S if self._every_s > _ANSWER_S else self._every_s)
        return self._follower.newest == ours

    async def _block(self, peer: PeerChannel, number: int, timeout_s: float = _ANSWER_S) -> Any | None:
        """The peer's block, None when it has none so far or does not answer."""
        try:
            async with asyncio.timeout(timeout_s):
                return await deliver.one_block(peer, self._identity, self._channel, number, self._clock())
        except (TimeoutError, LedgerError):
            return None
