"""A block's bytes and its hash.

payload = previous hash (32) ‖ data hash (32) ‖ count (u32) ‖ one validation code per transaction ‖ data
data    = per transaction: length (u32) ‖ envelope; of block 0: length (u32) ‖ genesis ‖ length ‖ operator commitment
hash    = SHA-256("flexrelay-block-v1" ‖ number (u64) ‖ payload without the data)

The codes are known before the block is written, because one process orders and validates; so the hash covers them.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from flexrelay.ledger.port import Validation

_DOMAIN = b"flexrelay-block-v1"
_HEAD = struct.Struct(">32s32sI")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")

CODES = (
    Validation.VALID,
    Validation.MVCC_READ_CONFLICT,
    Validation.PHANTOM_READ_CONFLICT,
    Validation.ENDORSEMENT_POLICY_FAILURE,
    Validation.DUPLICATE_TXID,
    Validation.INVALID,
)
CODE_OF = {validation: code for code, validation in enumerate(CODES)}
NO_HASH = bytes(32)


class BlockFormatError(ValueError):
    """The payload is not a block; the message says why."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block with its parts as bytes; block 0 has no codes and holds the genesis and the operator's commitment."""

    number: int
    previous: bytes
    hash: bytes
    codes: tuple[Validation, ...]
    items: tuple[bytes, ...]


def encode_block(
    number: int, previous: bytes, codes: Sequence[Validation], items: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """(payload, hash)."""
    data = b"".join([part for item in items for part in (_U32.pack(len(item)), item)])
    head = _HEAD.pack(previous, hashlib.sha256(data).digest(), len(codes)) + bytes(CODE_OF[code] for code in codes)
    return head + data, _hash(number, head)


def decode_block(number: int, payload: bytes) -> Block:
    """Take a payload apart and check its data hash. Raises BlockFormatError."""
    if len(payload) < _HEAD.size:
        raise BlockFormatError("shorter than a block's head")
    previous, data_hash, count = _HEAD.unpack_from(payload)
    start = _HEAD.size + count
    if start > len(payload):
        raise BlockFormatError("shorter than its transaction count says")
    codes = payload[_HEAD.size : start]
    if any(code >= len(CODES) for code in codes):
        raise BlockFormatError("holds a validation code that is not known")
    if hashlib.sha256(memoryview(payload)[start:]).digest() != data_hash:
        raise BlockFormatError("the data hash in the header is not the data's")
    items = _split(payload, start)
    if number > 0 and len(items) != count:
        raise BlockFormatError(f"{len(items)} transactions but {count} validation codes")
    return Block(number, previous, _hash(number, payload[:start]), tuple(CODES[code] for code in codes), items)


def _hash(number: int, head: bytes) -> bytes:
    return hashlib.sha256(_DOMAIN + _U64.pack(number) + head).digest()


def _split(payload: bytes, position: int) -> tuple[bytes, ...]:
    items = []
    while position < len(payload):
        if position + 4 > len(payload):
            raise BlockFormatError("ends inside a length")
        (length,) = _U32.unpack_from(payload, position)
        position += 4
        if position + length > len(payload):
            raise BlockFormatError("ends inside a transaction")
        items.append(payload[position : position + length])
        position += length
    return tuple(items)
