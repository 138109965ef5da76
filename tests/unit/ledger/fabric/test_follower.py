"""Following blocks: in order, over peers that fail, lie, hold back, or judge in their own favour."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from unit.ledger.fabric.server import BlockServer
from unit.ledger.fabric.world import CHAINCODE, CHANNEL, Authority, Node, World, own_hash

from flexrelay.ledger.fabric import Untrusted, Vigilance, deliver
from flexrelay.ledger.fabric import follower as follower_module
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.follower import Follower
from flexrelay.ledger.fabric.gateway import Gateway, Limits
from flexrelay.ledger.fabric.messages import (
    COMMIT_HASH,
    TRANSACTIONS_FILTER,
    Block,
    DeliverResponse,
    Envelope,
    Payload,
    SignatureHeader,
    SignedProposal,
)
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.fabric.profile import Peer
from flexrelay.ledger.fabric.system import System
from flexrelay.ledger.fabric.verification import RAFT, Consensus, consensus_of
from flexrelay.ledger.fabric.witness import Witness
from flexrelay.ledger.port import Checkpoint, LedgerError, LedgerUnavailable, TxEvents, Validation

QUICK = Vigilance(silent_s=0.1, answer_s=30.0, witness_s=0.1)


class Me:
    """The client's identity, signed by its node."""

    def __init__(self, node: Node) -> None:
        self.org = node.org
        self.creator = node.serialized
        self._node = node

    def renew(self) -> bool:
        return False

    def check(self) -> None:
        pass

    async def sign(self, message: bytes) -> bytes:
        return self._node.sign(message)


def chain(world: World, length: int, endorser: Node | None = None, begun: list[Any] | None = None) -> list[Any]:
    """Blocks with one transaction each, its event named after the block's number."""
    blocks = list(begun or [world.block(0, b"", [world.configuration("etcdraft")], [], signers=[])])
    while len(blocks) < length:
        blocks.append(following(world, blocks[-1], endorser))
    return blocks


def following(world: World, block: Any, endorser: Node | None = None, **signing: Any) -> Any:
    number = block.header.number + 1
    events = [(f"event {number}", b"payload")]
    payload = world.endorsed(world.proposal(), [endorser or world.peers["dso"]], events=events)
    made = world.block(number, own_hash(block), [world.envelope(payload)], [0], **signing)
    made.metadata.metadata[COMMIT_HASH] = b"commit %d" % number
    return made


def copied(blocks: list[Any]) -> list[Any]:
    found = []
    for block in blocks:
        copy = Block()
        copy.CopyFrom(block)
        found.append(copy)
    return found


class Stage:
    follower: Follower
    witness: Witness
    pool: PeerPool


@asynccontextmanager
async def following_from(
    world: World, height: int, *servers: BlockServer, consensus: Consensus = RAFT, configuration: int = 0
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.serving()) for server in servers]
        stage = Stage()
        me: Any = Me(world.client)
        stage.pool = PeerPool(peers, "dso")
        gateway = Gateway(CHANNEL, me, stage.pool, world.trust, Limits())
        system = System(CHANNEL, gateway, lambda: 1)
        stage.follower = Follower(CHANNEL, {CHAINCODE}, me, stage.pool, world.trust, system, lambda: 1, QUICK)
        stage.witness = Witness(CHANNEL, me, stage.pool, stage.follower, lambda: 1, QUICK.witness_s)
        stage.follower.start(height, consensus, configuration)
        task = asyncio.create_task(stage.follower.run())
        try:
            yield stage
        finally:
            stage.follower.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def taken(stage: Stage, checkpoint: Checkpoint, until: int) -> list[TxEvents]:
    """Up to and with block `until`."""
    found = []
    async with asyncio.timeout(60):
        async for item in stage.follower.events(checkpoint):
            found.append(item)
            if item.block >= until:
                break
    return found


def names(items: list[TxEvents]) -> list[str]:
    return [event.name for item in items for event in item.events]


async def test_the_past_and_what_comes_are_one_stream(world: World) -> None:
    server = BlockServer("dso", chain(world, 5))
    async with following_from(world, 5, server) as stage:
        items = asyncio.create_task(taken(stage, Checkpoint(), 7))
        await asyncio.sleep(0.05)
        for _ in range(3):
            server.add(following(world, server.blocks[-1]))
            await asyncio.sleep(0.02)
        found = await items
        assert [item.block for item in found] == list(range(8))
        assert names(found) == [f"event {number}" for number in range(1, 8)]
        assert names(await taken(stage, found[5].checkpoint, 7)) == ["event 6", "event 7"]
        assert stage.follower.outcomes.get(found[6].tx_id).block == 6  # type: ignore[union-attr] # it is known


async def test_a_checkpoint_that_its_block_does_not_hold(world: World) -> None:
    async with following_from(world, 4, BlockServer("dso", chain(world, 4))) as stage:
        for block in (1, 3):
            with pytest.raises(LedgerError, match="does not hold the transaction"):
                await taken(stage, Checkpoint(block, "no such"), 4)


async def test_closing_ends_the_subscribers(world: World) -> None:
    async with following_from(world, 2, BlockServer("dso", chain(world, 2))) as stage:
        items = asyncio.create_task(taken(stage, Checkpoint(), 99))
        await asyncio.sleep(0.05)
        stage.follower.close()
        with pytest.raises(LedgerUnavailable, match="closed"):
            await items


def _changed_data(block: Any) -> None:
    block.data.data[0] = block.data.data[0][:-1] + b"\x00"


def _without_signature(block: Any) -> None:
    block.metadata.metadata[0] = b""


def _other_number(block: Any) -> None:
    block.header.number += 1


@pytest.mark.parametrize("change", [_changed_data, _without_signature, _other_number])
async def test_a_lying_peer_is_left_for_another_organisations(world: World, change: Callable[[Any], None]) -> None:
    blocks = chain(world, 6)
    lying = copied(blocks)
    change(lying[4])
    liar, honest = BlockServer("dso", lying), BlockServer("agga", blocks)
    async with following_from(world, 3, liar, honest) as stage:
        found = await taken(stage, Checkpoint(2), 5)
        assert names(found) == [f"event {number}" for number in range(2, 6)]
        assert honest.asked_from[0] == 4
        assert stage.pool.order()[0].org == "agga"


async def test_a_forked_chain_is_noticed(world: World) -> None:
    """Another chain, signed by orderers too: its blocks do not follow what was seen before."""
    blocks = chain(world, 6)
    fork = chain(world, 6, begun=copied(blocks[:3]))
    first, second = BlockServer("dso", blocks[:4]), BlockServer("agga", fork)
    async with following_from(world, 3, first, second) as stage:
        assert names(await taken(stage, Checkpoint(2), 3)) == ["event 2", "event 3"]
        stage.follower.leave(stage.follower.peer, "test")  # type: ignore[arg-type] # there is one
        async with asyncio.timeout(60):
            while not second.asked_from:  # noqa: ASYNC110 (the server notes it)
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert second.asked_from == [4]
        assert stage.follower.height == 4
        first.add(blocks[4])
        assert names(await taken(stage, Checkpoint(4), 4)) == ["event 4"]


async def test_an_event_without_a_true_endorsement_is_not_delivered(world: World) -> None:
    stranger = Node(Authority("dso"), "peer0.dso", "peer")
    blocks = chain(world, 3)
    forged = [*blocks, following(world, blocks[-1], stranger)]
    honest = [*blocks, following(world, blocks[-1])]
    async with following_from(world, 2, BlockServer("dso", forged), BlockServer("agga", honest)) as stage:
        found = await taken(stage, Checkpoint(1), 3)
        assert names(found) == ["event 1", "event 2", "event 3"]
        assert stage.pool.order()[0].org == "agga"


async def test_a_peer_that_holds_blocks_back_is_left(world: World) -> None:
    blocks = chain(world, 6)
    slow, other = BlockServer("dso", blocks), BlockServer("agga", blocks)
    slow.sends = 4
    async with following_from(world, 3, slow, other) as stage:
        stage.follower._vigilance = Vigilance(silent_s=0.1, answer_s=1.0)
        assert names(await taken(stage, Checkpoint(3), 5)) == ["event 3", "event 4", "event 5"]
        assert other.asked_from == [4]


async def test_a_block_that_comes_while_it_is_asked_for_is_not_held_back(world: World) -> None:
    class Late(BlockServer):
        async def evaluate(self, request: bytes, context: Any) -> bytes:
            """Its height; the block that it had just then comes right after."""
            answer = await super().evaluate(request, context)
            if self.sends < len(self.blocks):
                asyncio.get_running_loop().call_later(0.02, self.release)
            return answer

        def release(self) -> None:
            self.sends = 1 << 30
            more, self._more = self._more, asyncio.Event()
            more.set()

    late = Late("dso", chain(world, 6))
    late.sends = 4
    async with following_from(world, 3, late) as stage:
        stage.follower._vigilance = Vigilance(silent_s=0.2, answer_s=10.0)
        assert names(await taken(stage, Checkpoint(3), 5)) == ["event 3", "event 4", "event 5"]
        assert len(late.asked_from) == 1 and stage.pool.failures == {}


async def test_a_witness_finds_blocks_that_nobody_mentioned(world: World) -> None:
    """The own peer hides the new blocks, and says that it has none."""
    blocks = chain(world, 6)
    hiding, other = BlockServer("dso", blocks[:4]), BlockServer("agga", blocks)
    async with following_from(world, 3, hiding, other) as stage:
        assert names(await taken(stage, Checkpoint(3), 3)) == ["event 3"]
        await stage.witness.compare()
        assert names(await taken(stage, Checkpoint(4), 5)) == ["event 4", "event 5"]
        assert stage.witness.trouble == ""


async def test_a_witness_finds_a_false_judgement(world: World) -> None:
    blocks = chain(world, 4)
    false = copied(blocks)
    false[3].metadata.metadata[TRANSACTIONS_FILTER] = b"\x0b"
    servers = [BlockServer("dso", false), BlockServer("agga", blocks), BlockServer("aggb", blocks)]
    async with following_from(world, 3, *servers) as stage:
        found = await taken(stage, Checkpoint(3), 3)
        assert found[0].validation is Validation.MVCC_READ_CONFLICT
        await stage.witness.compare()
        assert "block 3" in stage.witness.trouble
        assert "disagree" in stage.witness.trouble
        assert stage.pool.order()[0].org == "agga"


async def test_a_witness_goes_on_after_a_defect(world: World) -> None:
    class Once(Witness):
        asked = 0

        async def compare(self) -> None:
            self.asked += 1
            if self.asked == 1:
                raise OSError("the key is out of reach")

    async with following_from(world, 1, BlockServer("dso", chain(world, 1)), BlockServer("agga", [])) as stage:
        me: Any = Me(world.client)
        witness = Once(CHANNEL, me, stage.pool, stage.follower, lambda: 1, 0.01)
        running = asyncio.create_task(witness.run())
        async with asyncio.timeout(60):
            while witness.asked < 2 and not running.done():  # noqa: ASYNC110 (it counts in the background)
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()


async def test_one_contradiction_is_told_and_nobody_is_outvoted(world: World) -> None:
    blocks = chain(world, 4)
    other = copied(blocks)
    other[3].metadata.metadata[COMMIT_HASH] = b"another"
    servers = [BlockServer("dso", blocks), BlockServer("agga", other), BlockServer("agga", other)]
    async with following_from(world, 3, *servers) as stage:
        await taken(stage, Checkpoint(3), 3)
        await stage.witness.compare()
        assert "of agga" in stage.witness.trouble
        assert stage.pool.order()[0].org == "dso"


async def test_a_witness_is_quiet_while_all_agree(world: World) -> None:
    blocks = chain(world, 4)
    async with following_from(world, 3, BlockServer("dso", blocks), BlockServer("agga", blocks)) as stage:
        await taken(stage, Checkpoint(3), 3)
        await stage.witness.compare()
        assert stage.witness.trouble == ""
        assert stage.pool.order()[0].org == "dso"


async def test_what_is_kept_in_memory_is_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is further behind reads the older blocks again from the peer."""
    blocks = chain(world, 12)
    monkeypatch.setattr(follower_module, "_KEPT_BYTES", 3 * len(b"payload"))
    async with following_from(world, 1, BlockServer("dso", blocks)) as stage:
        await taken(stage, Checkpoint(), 11)
        assert len(stage.follower._kept) == 3
        found = await taken(stage, Checkpoint(), 11)
        assert names(found) == [f"event {number}" for number in range(1, 12)]


@pytest.mark.parametrize("answers", [True, False])
async def test_a_slow_peer_keeps_its_calls_and_a_hanging_one_does_not(world: World, answers: bool) -> None:
    """Neither tells its height in time; the slow one answers other calls meanwhile."""
    server = BlockServer("dso", chain(world, 4))
    async with following_from(world, 3, server) as stage:
        await taken(stage, Checkpoint(3), 3)
        (peer,) = stage.pool.order()
        stage.follower._vigilance = Vigilance(silent_s=0.1, answer_s=3.0)
        server.answer_s = 60.0

        async def waiting() -> None:
            with stage.pool.attending(peer, LedgerUnavailable, "tx"):
                await asyncio.Event().wait()

        call = asyncio.create_task(waiting())
        async with asyncio.timeout(60):
            while not stage.follower.failure:
                if answers:
                    await peer.execute(SignedProposal(), 60.0)
                await asyncio.sleep(0.05)
        await asyncio.wait([call], timeout=0.1 if answers else 60)
        assert call.done() is not answers
        if answers:
            call.cancel()
        else:
            assert "hangs" in str(call.exception())


async def test_a_renewed_certificate_is_taken_by_who_only_follows(world: World) -> None:
    asked: list[bytes] = []

    class Noting(BlockServer):
        async def deliver(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            envelope = Envelope.FromString(await anext(aiter(requests)))
            header = Payload.FromString(envelope.payload).header.signature_header
            asked.append(SignatureHeader.FromString(header).creator)
            yield DeliverResponse(block=self.blocks[0]).SerializeToString()

    class Renewed(Me):
        def renew(self) -> bool:
            self.creator = b"the new one"
            return True

    me: Any = Renewed(world.client)
    async with Noting("dso", chain(world, 1)).serving() as peer:
        await deliver.one_block(peer, me, CHANNEL, 0, 1)
    assert asked == [b"the new one"]


async def test_a_stream_that_breaks_while_its_request_is_signed(world: World) -> None:
    """The key may be in a wallet, or further away."""

    class Slow(Me):
        async def sign(self, message: bytes) -> bytes:
            await asyncio.sleep(1.0)
            return await super().sign(message)

    async with BlockServer("dso", []).listening() as port:
        pass
    peer, me = PeerChannel(Peer(org="dso", endpoint=f"127.0.0.1:{port}"), 0, None), Slow(world.client)
    try:
        with pytest.raises(LedgerUnavailable, match="stream of blocks did not begin"):
            await deliver.one_block(peer, me, CHANNEL, 0, 1)  # type: ignore[arg-type] # an identity without files
    finally:
        await peer.close()


@pytest.fixture
def rotated(world: World) -> list[Any]:
    """A BFT chain of blocks 0 to 5; block 3 gives all four orderers other certificates, under the same ids."""
    later = copy.copy(world)
    later.orderers = [Node(world.authorities["op"], f"orderer{n}", "orderer") for n in range(4)]
    blocks = [world.block(0, b"", [world.configuration("BFT")], [], signers=[])]
    for _ in range(2):
        blocks.append(following(world, blocks[-1], bft=(1, 2, 3)))
    change = world.configuration("BFT", later.orderers)
    blocks.append(world.block(3, own_hash(blocks[-1]), [change], [0], bft=(1, 2, 3), last_config=3))
    for _ in range(2):
        blocks.append(following(later, blocks[-1], bft=(2, 3, 4), last_config=3))
    return blocks


@pytest.mark.parametrize("height", [1, 3, 4, 5, 6])
async def test_orderers_that_get_other_certificates(world: World, rotated: list[Any], height: int) -> None:
    """Wherever a gateway begins, with the newest configuration that it finds: the one before signs the change."""
    server = BlockServer("dso", rotated)
    async with following_from(world, height, server, consensus=consensus_of(rotated[3]), configuration=3) as stage:
        found = await taken(stage, Checkpoint(), 5)
        assert names(found) == ["event 1", "event 2", "event 4", "event 5"]
        assert stage.pool.trouble == ""


async def test_what_a_peer_says_of_a_configuration_does_not_count(world: World, rotated: list[Any]) -> None:
    false = copied(rotated)
    false[3].metadata.metadata[TRANSACTIONS_FILTER] = b"\xfe"
    async with following_from(world, 2, BlockServer("dso", false), consensus=consensus_of(rotated[0])) as stage:
        assert names(await taken(stage, Checkpoint(4), 5)) == ["event 4", "event 5"]
        assert stage.pool.trouble == ""


async def test_another_block_than_the_one_that_was_asked_for(world: World) -> None:
    """The first block is signed by nobody: in place of another one it could say anything."""
    blocks = chain(world, 6)
    liar = BlockServer("dso", [blocks[0], blocks[2], blocks[0], *blocks[3:]])
    async with following_from(world, 5, liar) as stage:
        for number in (1, 2):
            with pytest.raises(Untrusted, match=f"came where block {number} was asked for"):
                await taken(stage, Checkpoint(number), 5)
            (peer,) = stage.pool.order()
            with pytest.raises(Untrusted, match=f"came where block {number} was asked for"):
                await deliver.one_block(peer, Me(world.client), CHANNEL, number, 1)  # type: ignore[arg-type] # as above
    answering: Any = Answering(blocks[0].SerializeToString())
    with pytest.raises(Untrusted, match="first block"):
        await System(CHANNEL, answering, lambda: 1).block_of("tx")


@pytest.mark.parametrize(
    ("said", "nothing"),
    [
        ("no such transaction ID [tx] in index", True),
        (
            "details for the TXID [tx] not available. Ledger bootstrapped from a snapshot. First available block = [7]",
            True,
        ),
        ("entry not found in index", False),
    ],
)
async def test_a_transaction_that_no_peer_has_a_block_of(said: str, nothing: bool) -> None:
    answering: Any = Answering(LedgerUnavailable(f"peer a:1 says UNKNOWN: {said}"))
    system = System(CHANNEL, answering, lambda: 1)
    if nothing:
        assert await system.block_of("tx") is None
    else:
        with pytest.raises(LedgerUnavailable):
            await system.block_of("tx")


class Answering:
    """A gateway whose peers answer everything with this."""

    def __init__(self, answer: bytes | LedgerError) -> None:
        self._answer = answer

    async def evaluate(self, *args: Any, **options: Any) -> bytes:
        if isinstance(self._answer, LedgerError):
            raise self._answer
        return self._answer
