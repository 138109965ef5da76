"""Blocks: the hash of the header, the chain, the data, the orderers' signatures; every changed bit is noticed."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.ledger.fabric.world import Authority, Node, World, own_hash

from flexrelay.ledger.fabric import Untrusted
from flexrelay.ledger.fabric.messages import SIGNATURES, Block, Metadata
from flexrelay.ledger.fabric.verification import (
    RAFT,
    Consensus,
    block_hash,
    configured,
    consensus_of,
    header_bytes,
    last_config,
    verify_block,
)

NOTHING = bytes(32)


@given(st.integers(min_value=0, max_value=2**64 - 1), st.binary(max_size=200), st.binary(max_size=200))
def test_header_bytes_are_der(number: int, previous: bytes, data: bytes) -> None:
    block = Block(header={"number": number, "previous_hash": previous, "data_hash": data})
    rest = header_bytes(block.header)
    tag, body, end = _read(rest)
    assert (tag, end) == (0x30, b"")
    tag, value, body = _read(body)
    assert (tag, int.from_bytes(value, "big", signed=True)) == (0x02, number)
    assert len(value) == 1 or value[0] != 0 or value[1] >= 0x80  # the shortest form
    assert [_read(body)[:2], _read(_read(body)[2])[:2]] == [(0x04, previous), (0x04, data)]
    assert block_hash(block.header) == hashlib.sha256(rest).digest()


def _read(data: bytes) -> tuple[int, bytes, bytes]:
    tag, size, start = data[0], data[1], 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    return tag, data[start : start + size], data[start + size :]


@pytest.fixture(scope="module")
def block(world: World) -> Any:
    unsigned = world.proposal()
    return world.block(7, NOTHING, [world.envelope(world.endorsed(unsigned, [world.peers["dso"]]))], [0])


def changed(block: Any) -> Any:
    copy = Block()
    copy.CopyFrom(block)
    return copy


def test_a_good_block_is_believed(world: World, block: Any) -> None:
    assert verify_block(block, NOTHING, world.trust, RAFT) == own_hash(block)
    assert verify_block(block, None, world.trust, RAFT) == own_hash(block)


def test_every_change_of_ordered_content_is_noticed(world: World, block: Any) -> None:
    data = bytearray(block.data.data[0])
    for position in range(0, len(data), 97):
        bad = changed(block)
        data[position] ^= 1
        bad.data.data[0] = bytes(data)
        data[position] ^= 1
        with pytest.raises(Untrusted, match="is not its data's"):
            verify_block(bad, NOTHING, world.trust, RAFT)


def test_a_changed_header_is_noticed(world: World, block: Any) -> None:
    for name, value, message in (
        ("number", 8, "signature"),
        ("previous_hash", b"\x01" * 32, "the block before it is"),
        ("data_hash", b"\x01" * 32, "is not its data's"),
    ):
        bad = changed(block)
        setattr(bad.header, name, value)
        with pytest.raises(Untrusted, match=message):
            verify_block(bad, NOTHING, world.trust, RAFT)
    dropped = changed(block)
    del dropped.data.data[0]
    with pytest.raises(Untrusted):
        verify_block(dropped, NOTHING, world.trust, RAFT)


def test_a_transaction_added_to_a_block_is_noticed(world: World, block: Any) -> None:
    bad = changed(block)
    bad.data.data.append(block.data.data[0])
    with pytest.raises(Untrusted, match="is not its data's"):
        verify_block(bad, NOTHING, world.trust, RAFT)


def test_signatures_of_others_do_not_count(world: World) -> None:
    stranger = Node(Authority("op"), "orderer0", "orderer")  # another authority under the same name
    client = Node(world.authorities["op"], "clerk", "client")
    for signers, message in (
        ([], "carries none"),
        ([stranger], "was not issued by op"),
        ([client], "its certificate is for"),
        ([world.peers["dso"]], 'kind = "orderer"'),
    ):
        bad = world.block(1, NOTHING, [b"x"], [254], signers=signers)
        with pytest.raises(Untrusted, match=message):
            verify_block(bad, None, world.trust, RAFT)
    good = world.block(1, NOTHING, [b"x"], [254], signers=[stranger, world.orderers[2]])
    verify_block(good, None, world.trust, RAFT)


def test_a_signature_for_another_block_does_not_count(world: World, block: Any) -> None:
    other = world.block(7, NOTHING, [b"something else"], [254])
    other.metadata.metadata[SIGNATURES] = block.metadata.metadata[SIGNATURES]
    with pytest.raises(Untrusted, match="is not its"):
        verify_block(other, None, world.trust, RAFT)


def test_the_genesis_is_signed_by_nobody(world: World) -> None:
    genesis = world.block(0, b"", [world.configuration("etcdraft")], [], signers=[])
    verify_block(genesis, None, world.trust, RAFT)
    following = world.block(1, own_hash(genesis), [b"x"], [254])
    verify_block(following, own_hash(genesis), world.trust, RAFT)


@pytest.fixture(scope="module")
def bft(world: World) -> Consensus:
    return consensus_of(world.block(0, b"", [world.configuration("BFT")], []))


def test_the_consensus_is_read_from_the_configuration(world: World, bft: Consensus) -> None:
    assert (bft.kind, sorted(bft.consenters), bft.quorum) == ("BFT", [1, 2, 3, 4], 3)
    assert consensus_of(world.block(0, b"", [world.configuration("etcdraft")], [])) == RAFT
    with pytest.raises(Untrusted):
        consensus_of(world.block(0, b"", [b"\xff"], []))


@pytest.mark.parametrize(("orderers", "quorum"), [(4, 3), (5, 4), (6, 4), (7, 5), (10, 7)])
def test_quorums(orderers: int, quorum: int) -> None:
    assert Consensus("BFT", dict.fromkeys(range(orderers), b"")).quorum == quorum


@pytest.mark.parametrize(
    ("ids", "good"), [((1, 2, 3), True), ((4, 2, 1), True), ((1, 2, 3, 4), True), ((1, 2), False), ((), False)]
)
def test_bft_needs_a_quorum(world: World, bft: Consensus, ids: tuple[int, ...], good: bool) -> None:
    block = world.block(5, NOTHING, [b"x"], [254], bft=ids, signers=[])
    if good:
        verify_block(block, NOTHING, world.trust, bft)
    else:
        with pytest.raises(Untrusted, match="needs 3"):
            verify_block(block, NOTHING, world.trust, bft)


def test_one_orderer_that_signs_three_times_is_one(world: World, bft: Consensus) -> None:
    block = world.block(5, NOTHING, [b"x"], [254], bft=(1, 1, 1))
    with pytest.raises(Untrusted, match="has 1 good"):
        verify_block(block, NOTHING, world.trust, bft)
    mixed = world.block(5, NOTHING, [b"x"], [254], signers=[world.orderers[0]] * 3)
    with pytest.raises(Untrusted, match="has 1 good"):
        verify_block(mixed, NOTHING, world.trust, bft)


def test_a_raft_signature_is_not_enough_on_bft(world: World, bft: Consensus) -> None:
    outsider = Node(world.authorities["op"], "orderer9", "orderer")
    block = world.block(5, NOTHING, [b"x"], [254], signers=[outsider, *world.orderers[:2]])
    with pytest.raises(Untrusted, match="has 2 good"):
        verify_block(block, NOTHING, world.trust, bft)


def test_an_unknown_consenter_does_not_count(world: World, bft: Consensus) -> None:
    fewer = Consensus("BFT", {number: bft.consenters[number] for number in (1, 2, 3)})
    block = world.block(5, NOTHING, [b"x"], [254], bft=(4,))
    with pytest.raises(Untrusted, match="consenter 4 is not"):
        verify_block(block, NOTHING, world.trust, fewer)


def test_a_configuration_by_itself_needs_an_orderer(world: World, bft: Consensus) -> None:
    """Also one that came after the first block on BFT, whose consenters sign by their number."""
    new = [Node(world.authorities["op"], f"orderer{n}", "orderer") for n in range(4)]
    some = [new[0], *world.orderers[1:3], new[3]]
    assert configured(world.block(5, NOTHING, [world.configuration("BFT")], [0], bft=(1, 2, 3)), world.trust) == bft
    changed = world.block(5, NOTHING, [world.configuration("BFT", some)], [0], bft=(1, 2, 3))
    assert configured(changed, world.trust).quorum == 3
    assert configured(world.block(5, NOTHING, [world.configuration("etcdraft")], [0]), world.trust) == RAFT
    for nobody in (
        world.block(5, NOTHING, [world.configuration("BFT", new)], [0], bft=(1, 2, 3)),
        world.block(5, NOTHING, [world.configuration("etcdraft")], [0], bft=(1, 2, 3)),
        world.block(5, NOTHING, [world.configuration("BFT")], [0], signers=[]),
    ):
        with pytest.raises(Untrusted, match="has 0 good"):
            configured(nobody, world.trust)


def test_metadata_that_cannot_be_read(world: World, block: Any) -> None:
    for metadata in ([], [b"\xff\xff"]):
        bad = changed(block)
        del bad.metadata.metadata[:]
        bad.metadata.metadata.extend(metadata)
        with pytest.raises(Untrusted, match="carries no signatures"):
            verify_block(bad, None, world.trust, RAFT)
        with pytest.raises(Untrusted):
            last_config(bad)


def test_the_last_configuration_is_part_of_what_is_signed(world: World) -> None:
    block = world.block(9, NOTHING, [b"x"], [254], last_config=4)
    assert last_config(block) == 4
    metadata = Metadata.FromString(block.metadata.metadata[SIGNATURES])
    metadata.value = world.block(9, NOTHING, [b"x"], [254], last_config=3).metadata.metadata[SIGNATURES][:4]
    block.metadata.metadata[SIGNATURES] = metadata.SerializeToString()
    with pytest.raises(Untrusted):
        verify_block(block, None, world.trust, RAFT)
