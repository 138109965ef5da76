"""Merkle trees against RFC 6962's own recursive definition, and forged proofs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_contracts.rules import merkle

leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70)


def by_definition(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, over leaf hashes."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\x01" + by_definition(hashes[:split]) + by_definition(hashes[split:])).digest()


def path_by_definition(index: int, hashes: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1."""
    if len(hashes) == 1:
        return []
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    if index < split:
        return [*path_by_definition(index, hashes[:split]), by_definition(hashes[split:])]
    return [*path_by_definition(index - split, hashes[split:]), by_definition(hashes[:split])]


@given(leaves)
def test_root_and_paths_are_those_of_the_rfc(hashes: list[bytes]) -> None:
    top = merkle.root(hashes)
    assert top == by_definition(hashes)
    for index, found in enumerate(merkle.paths(hashes)):
        assert list(found) == path_by_definition(index, hashes)
        assert found == merkle.path(hashes, index)
        assert merkle.verify(hashes[index], index, len(hashes), found, top)


@given(leaves, st.data())
def test_a_changed_proof_fails(hashes: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(hashes) - 1))
    top, proof = merkle.root(hashes), list(merkle.path(hashes, index))
    wrong = data.draw(st.binary(min_size=32, max_size=32).filter(lambda h: h != hashes[index]))
    size = len(hashes)
    assert not merkle.verify(wrong, index, size, proof, top)
    assert not merkle.verify(hashes[index], index, size, [*proof, wrong], top)
    assert not merkle.verify(hashes[index], index, size, proof, sha256(top).digest())
    assert not merkle.verify(hashes[index], index, index, proof, top)
    assert not merkle.verify(hashes[index], -1, size, proof, top)
    if proof:
        assert not merkle.verify(hashes[index], index, size, proof[:-1], top)
        place = data.draw(st.integers(0, len(proof) - 1))
        bit = data.draw(st.integers(0, 255))
        flipped = bytearray(proof[place])
        flipped[bit // 8] ^= 1 << bit % 8
        assert not merkle.verify(hashes[index], index, size, [*proof[:place], bytes(flipped), *proof[place + 1 :]], top)
        assert not merkle.verify(hashes[index], index, size, [proof[0][:31], *proof[1:]], top)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=40, unique=True), st.data())
def test_a_leaf_has_one_index(hashes: list[bytes], data: st.DataObject) -> None:
    index, other = data.draw(st.permutations(range(len(hashes))))[:2]
    assert not merkle.verify(hashes[index], other, len(hashes), merkle.path(hashes, index), merkle.root(hashes))


@given(leaves, st.data())
def test_the_wire_form_round_trips(hashes: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(hashes) - 1))
    document = merkle.document(hashes, index)
    assert merkle.verify_document(hashes[index], document, merkle.root(hashes).hex())


def test_a_node_cannot_pass_for_a_leaf() -> None:
    """Domain separation: the two children of a node, put in as a payload, give another hash."""
    left, right = merkle.leaf_hash(b"s" * 16, b"a"), merkle.leaf_hash(b"s" * 16, b"b")
    assert merkle.root([left, right]) != merkle.leaf_hash(left[:16], left[16:] + right)


def test_known_vector() -> None:
    """The tree of RFC 6962's reference implementation over its eight test leaves (unsalted leaves of that test)."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    hashes = [sha256(b"\x00" + bytes.fromhex(text)).digest() for text in inputs]
    assert merkle.root(hashes).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert merkle.root(hashes[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        merkle.root([])
    with pytest.raises(ValueError, match="32 bytes"):
        merkle.root([b"short"])
    with pytest.raises(ValueError, match="not in a tree of 2"):
        merkle.path([bytes(32), bytes(32)], 2)
    with pytest.raises(ValueError, match="16 bytes"):
        merkle.leaf_hash(b"short", b"")
