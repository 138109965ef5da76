"""One stream of blocks for all subscribers of a connection: verified, in order, over any peer, opened again for ever.

The newest blocks are kept; whoever is further behind reads the older ones over a stream of its own. A stream that is
silent is looked after: the peer is asked for its height, and one that does not answer or holds blocks back is left.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric import deliver
from flexrelay.ledger.fabric.blocks import Item, executed, is_config, items_of, transaction_events
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.errors import ProfileError, Untrusted
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.messages import COMMIT_HASH, TRANSACTIONS_FILTER
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.outcomes import Outcomes
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.fabric.proposal import check_endorsements
from flexrelay.ledger.fabric.system import System
from flexrelay.ledger.fabric.verification import (
    RAFT,
    Consensus,
    block_hash,
    configured,
    consensus_of,
    last_config,
    verify_block,
)
from flexrelay.ledger.port import (
    Checkpoint,
    LedgerError,
    LedgerUnavailable,
    TxEvents,
)

_LOG = logging.getLogger(__name__)
_KEPT_BLOCKS = 256
_KEPT_ITEMS = 20_000
_KEPT_BYTES = 64 * 1024 * 1024
_RETRY_S = 0.2
_LONGEST_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Vigilance:
    """In seconds: after what silence the peer of the stream is asked, how long it may take to answer, and how often
    another organisation's peer is asked whether it has the same blocks."""

    silent_s: float = 5.0
    answer_s: float = 5.0
    witness_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Followed:
    """A verified block as subscribers see it."""

    number: int
    items: tuple[TxEvents, ...]

    @property
    def size(self) -> int:
        """Bytes of its events."""
        return sum(len(event.payload) for item in self.items for event in item.events)


@dataclass(frozen=True, slots=True)
class Proof:
    """What two honest peers have in common of a block: its hash, the judgements, and the chain of commit hashes."""

    number: int
    hash: bytes
    codes: bytes
    commit: bytes


def proof_of(block: Any) -> Proof:
    metadata = [*block.metadata.metadata, b"", b"", b"", b"", b""]
    return Proof(block.header.number, block_hash(block.header), metadata[TRANSACTIONS_FILTER], metadata[COMMIT_HASH])


class Follower:
    """See the module's text. `run` does the work; everything else may be called while it runs."""

    def __init__(
        self,
        channel: str,
        chaincodes: Collection[str],
        identity: Identity,
        pool: PeerPool,
        trust: Trust,
        system: System,
        clock: Callable[[], int],
        vigilance: Vigilance,
    ) -> None:
        self._channel = channel
        self._chaincodes = frozenset(chaincodes)
        self._identity = identity
        self._pool = pool
        self._trust = trust
        self._system = system
        self._clock = clock
        self._vigilance = vigilance
        self._consensus: Consensus = RAFT
        self._configured: dict[int, Consensus] = {}
        self._hash: bytes | None = None
        self._next = 0
        self._told = 0
        self._shown: dict[str, int] = {}
        self._kept: deque[Followed] = deque()
        self._kept_items = self._kept_bytes = 0
        self._advanced = asyncio.Event()
        self._closed = False
        self._own: set[str] = set()
        self._heard = float("-inf")
        self._stream: asyncio.Task[None] | None = None
        self.failure = ""
        """Why the stream broke last."""
        self.outcomes = Outcomes()
        self.newest: Proof | None = None
        self.peer: PeerChannel | None = None

    async def consensus_for(self, block: Any, peer: PeerChannel) -> Consensus:
        """The consensus under which a block was signed. On a channel that is Raft now it always was.

        Raises Untrusted, and LedgerUnavailable when the peer does not give the configuration.
        """
        if self._consensus.kind != "BFT":
            return self._consensus
        index = last_config(block)
        if index == block.header.number:  # a configuration is signed under the one before
            index = max(index - 1, 0)
            index = last_config(await self._one(peer, index))
        if index not in self._configured:
            self._configured[index] = configured(await self._one(peer, index), self._trust)
        return self._configured[index]

    async def _one(self, peer: PeerChannel, number: int) -> Any:
        try:
            async with asyncio.timeout(self._vigilance.answer_s):
                return await deliver.one_block(peer, self._identity, self._channel, number, self._clock())
        except TimeoutError:
            raise LedgerUnavailable(f"peer {peer.address} does not give block {number}") from None

    @property
    def height(self) -> int:
        """The number of blocks that were followed so far, the older ones counted in."""
        return self._next

    @property
    def seen(self) -> int:
        """`height`, or more when a later block was seen by itself."""
        return max(self._next, self._told)

    def saw(self, number: int) -> None:
        """This block was seen, verified, elsewhere than in the stream."""
        self._told = max(self._told, number + 1)

    @property
    def shown(self) -> Mapping[str, int]:
        """How many blocks the peer of the stream has certainly: what it sent over this very stream."""
        return self._shown

    def heard_within(self, seconds: float) -> bool:
        """Whether the stream gave a sign of life so lately that nothing can have been missed."""
        return asyncio.get_running_loop().time() - self._heard < seconds

    def start(self, height: int, consensus: Consensus, configuration: int = 0) -> None:
        """Begin at the newest of `height` blocks; `consensus` is set by the block `configuration`."""
        self._next = max(height - 1, 0)
        self._heard = asyncio.get_running_loop().time()
        self._consensus = self._configured[configuration] = consensus

    def checked(self, tx_id: str) -> None:
        """The endorsements of this transaction were verified when it was prepared."""
        self._own.add(tx_id)
        if len(self._own) > Outcomes.ROOM:
            self._own.pop()

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            peer = self._pool.order()[0]
            before = self._next
            self.peer, self._shown = peer, {}
            self._stream = asyncio.create_task(self._follow(peer), name=f"fabric-stream-{peer.address}")
            try:
                await self._stream
            except Untrusted as error:
                self.failure = str(error)
                self._pool.lied(peer, self.failure)
            except (LedgerError, ProfileError) as error:
                self.failure = str(error)
                self._pool.failed(peer, self.failure)
            except asyncio.CancelledError:
                own = asyncio.current_task()
                if not self._stream.done() or (own is not None and own.cancelling()):
                    self._stream.cancel()
                    await asyncio.gather(self._stream, return_exceptions=True)
                    raise
            except Exception:
                _LOG.exception("following the blocks of %s at peer %s failed", self._channel, peer.address)
                self._pool.failed(peer, "defect")
            failures = 0 if self._next > before else failures + 1
            await asyncio.sleep(min(_RETRY_S * 2 ** min(failures, 10), _LONGEST_RETRY_S) if failures else 0)

    def leave(self, peer: PeerChannel, why: str) -> None:
        """End the stream from this peer, and go on from another."""
        if self.peer is peer and self._stream is not None:
            self._pool.failed(peer, why)
            self._stream.cancel()

    async def _follow(self, peer: PeerChannel) -> None:
        """Take blocks from one peer until its stream breaks or falls silent without a reason."""
        stream = deliver.blocks(peer, self._identity, self._channel, self._next, None, self._clock())
        async with aclosing(stream) as blocks:
            coming: asyncio.Future[Any] | None = None
            try:
                while True:
                    if coming is None:
                        coming = asyncio.ensure_future(anext(blocks))
                    done, _ = await asyncio.wait([coming], timeout=self._vigilance.silent_s)
                    if not done:
                        await self._look_after(peer, coming)
                        continue
                    block, coming = coming.result(), None
                    if self._hash is None:
                        await self._place(block, peer)
                    self._take(block)
                    self._shown = {peer.address: self._next}
                    self._pool.good(peer)
            finally:
                if coming is not None:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    async def _look_after(self, peer: PeerChannel, coming: "asyncio.Future[Any]") -> None:
        """Raises LedgerUnavailable when the silent peer does not answer or has blocks that it does not send; `coming`
        is the next one."""
        asked = asyncio.get_running_loop().time()
        try:
            height = await self._system.height(peer, timeout_s=self._vigilance.answer_s)
        except LedgerUnavailable:
            if not peer.answered_since(asked):  # one that is slow goes on with the calls that it has
                self._pool.give_up(peer)  # it would let every call wait for its deadline
            raise
        if height <= self._next:
            self._heard = asyncio.get_running_loop().time()
            return
        done, _ = await asyncio.wait([coming], timeout=self._vigilance.silent_s)
        if not done:
            raise LedgerUnavailable(f"peer {peer.address} has {height} blocks but sends none from {self._next} on")

    async def _place(self, block: Any, peer: PeerChannel) -> None:
        """The first block may be older than the configuration that was found at the start, or be that configuration:
        then it is signed under the one before. A peer that began with a snapshot may lack that one."""
        try:
            self._consensus = await self.consensus_for(block, peer)
        except LedgerUnavailable as error:
            _LOG.info("the newest configuration must do for block %d: %s", block.header.number, error)

    def _take(self, block: Any) -> None:
        number = block.header.number
        if number != self._next:
            raise Untrusted(f"block {number} came where block {self._next} was due")
        found = verify_block(block, self._hash, self._trust, self._consensus)
        items = items_of(block)
        self._check_endorsements(items)
        if is_config(block):
            self._consensus = self._configured[number] = consensus_of(block)
        followed = Followed(number, transaction_events(number, items, self._chaincodes))
        self._hash = found
        self.newest = proof_of(block)
        self._next = number + 1
        self._heard = asyncio.get_running_loop().time()
        self.outcomes.add(number, followed.items)
        self._kept.append(followed)
        self._kept_items += len(followed.items)
        self._kept_bytes += followed.size
        while len(self._kept) > 1 and (
            len(self._kept) > _KEPT_BLOCKS or self._kept_items > _KEPT_ITEMS or self._kept_bytes > _KEPT_BYTES
        ):
            oldest = self._kept.popleft()
            self._kept_items -= len(oldest.items)
            self._kept_bytes -= oldest.size
        self._wake()

    def _check_endorsements(self, items: list[Item]) -> None:
        """Raises Untrusted when a valid transaction with events is not endorsed by the organisations' peers."""
        for item in items:
            if item.tx_id in self._own:
                self._own.discard(item.tx_id)
            elif item.action is not None and _has_event(item):
                check_endorsements(item.action.action, self._trust, item.tx_id)

    async def events(self, checkpoint: Checkpoint) -> AsyncGenerator[TxEvents, None]:
        """See the port. A checkpoint that names no transaction stands for the beginning of its block."""
        number = max(checkpoint.block, 0)
        skip = checkpoint.tx_id if checkpoint.block >= 0 else ""
        if number > self._next:
            _LOG.warning("checkpoint: block %d, but the peer has only %d so far: waiting", number, self._next)
        while True:
            async with aclosing(self._from(number)) as found:
                async for followed in found:
                    items = followed.items
                    if skip:
                        items, skip = _after(followed, skip), ""
                    for item in items:
                        yield item
                    number = followed.number + 1

    async def _from(self, number: int) -> AsyncGenerator[Followed, None]:
        """Blocks from `number` on: a finite piece of the past, or the next kept one."""
        while number >= self._next:
            if self._closed:
                raise LedgerUnavailable("the connection to the ledger was closed")
            await self._advanced.wait()
        first = self._kept[0].number if self._kept else self._next
        if number < first:
            async for followed in self._past(number, first - 1):
                yield followed
            return
        yield self._kept[number - first]

    async def _past(self, start: int, stop: int) -> AsyncGenerator[Followed, None]:
        """Verified blocks from a stream of its own. Raises LedgerUnavailable when it breaks."""
        peer = self._pool.order()[0]
        previous: bytes | None = None
        due = start
        try:
            stream = deliver.blocks(peer, self._identity, self._channel, start, stop, self._clock())
            async with aclosing(stream) as blocks:
                async for block in blocks:
                    number = block.header.number
                    if number != due:
                        raise Untrusted(f"block {number} came where block {due} was asked for")
                    due += 1
                    consensus = await self.consensus_for(block, peer)
                    previous = verify_block(block, previous, self._trust, consensus)
                    items = items_of(block)
                    self._check_endorsements(items)
                    yield Followed(number, transaction_events(number, items, self._chaincodes))
        except Untrusted as error:
            self._pool.lied(peer, str(error))
            raise
        except LedgerUnavailable as error:
            self._pool.failed(peer, str(error))
            raise

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        advanced, self._advanced = self._advanced, asyncio.Event()
        advanced.set()


def _has_event(item: Item) -> bool:
    try:
        return bool(executed(item.action).events)
    except DecodeError:
        raise Untrusted("a transaction that the peer calls valid cannot be read", item.tx_id) from None


def _after(followed: Followed, tx_id: str) -> tuple[TxEvents, ...]:
    position = next((i for i, item in enumerate(followed.items) if item.tx_id == tx_id), None)
    if position is None:
        raise LedgerError(f"checkpoint: block {followed.number} does not hold the transaction", tx_id)
    return followed.items[position + 1 :]
