"""Merkle trees in the shape of RFC 6962 §2.1 over salted leaves; the forms are `flexrelay_schemas.evidence`'s.

Leaf: SHA-256(0x00 ‖ salt ‖ payload). Node: SHA-256(0x01 ‖ left ‖ right). Hashing level by level and carrying an odd
last node upwards gives RFC 6962's split at the largest power of two below the size. Hashes are 32 raw bytes here.
"""

from collections.abc import Sequence
from hashlib import sha256

from flexrelay_schemas.evidence import Path


def leaf_hash(salt: bytes, payload: bytes) -> bytes:
    """The hash of a leaf. Raises ValueError unless the salt has 16 bytes."""
    if len(salt) != 16:
        raise ValueError(f"a leaf's salt has 16 bytes, not {len(salt)}")
    return sha256(b"\x00" + salt + payload).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes. Raises ValueError for no leaves (a window or anchor has at least one)."""
    level = _leaves(hashes)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def paths(hashes: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """All audit paths, leaf to root, in the order of the leaves: O(n log n) in their total length."""
    levels = _levels(hashes)
    return [_path(levels, index) for index in range(len(hashes))]


def path(hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of leaf `index`: sibling hashes from the leaf to the root. Raises ValueError outside the tree."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"leaf {index} is not in a tree of {len(hashes)}")
    return _path(_levels(hashes), index)


def verify(leaf: bytes, index: int, size: int, path_hashes: Sequence[bytes], root_hash: bytes) -> bool:
    """Whether `path_hashes` lead from leaf hash `leaf`, leaf `index` of `size`, to `root_hash` (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size or len(leaf) != 32:
        return False
    place, last, node = index, size - 1, leaf
    for sibling in path_hashes:
        if last == 0 or len(sibling) != 32:
            return False
        if place & 1 or place == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while not place & 1 and place:  # carried upwards without a sibling
                place >>= 1
                last >>= 1
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        place >>= 1
        last >>= 1
    return last == 0 and node == root_hash


def document(hashes: Sequence[bytes], index: int) -> Path:
    """The audit path of leaf `index` in its wire form."""
    return Path(index=index, size=len(hashes), hashes=tuple(h.hex() for h in path(hashes, index)))


def verify_document(leaf: bytes, proof: Path, root_hex: str) -> bool:
    """`verify` for the wire form; the root is lower-case hex."""
    return verify(leaf, proof.index, proof.size, [bytes.fromhex(h) for h in proof.hashes], bytes.fromhex(root_hex))


def _leaves(hashes: Sequence[bytes]) -> list[bytes]:
    if not hashes:
        raise ValueError("a tree needs at least one leaf")
    if any(len(leaf) != 32 for leaf in hashes):
        raise ValueError("a leaf hash has 32 bytes")
    return list(hashes)


def _above(level: list[bytes]) -> list[bytes]:
    pairs = iter(level)
    upper = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
    if len(level) & 1:
        upper.append(level[-1])
    return upper


def _levels(hashes: Sequence[bytes]) -> list[list[bytes]]:
    levels = [_leaves(hashes)]
    while len(levels[-1]) > 1:
        levels.append(_above(levels[-1]))
    return levels


def _path(levels: list[list[bytes]], index: int) -> tuple[bytes, ...]:
    result = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            result.append(level[sibling])
        index >>= 1
    return tuple(result)
