"""The ledger's block file, decoded: every transaction with its validation code, its signed intent and its events.

frame = "FXB1" ‖ number u64 ‖ length u32 ‖ CRC ‖ payload ‖ CRC; payload = previous hash ‖ data hash ‖ count u32 ‖ one
code a transaction ‖ data; data = length u32 ‖ envelope, …; envelope = "FXE1" ‖ signature 64 ‖ attestation 32 ‖ JSON.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.independent.canon import jcs, signed, unb64u

VALID = 0


@dataclass(frozen=True)
class Tx:
    """One transaction. `args` are those of the actor's intent; `writes` by key, JSON values, None where deleted."""

    block: int
    code: int
    tx_id: str
    function: str
    actor: str
    args: dict[str, Any]
    intent_id: str
    events: tuple[tuple[str, dict[str, Any]], ...]
    writes: dict[str, Any]
    signature: str
    message: dict[str, Any]


@dataclass
class Chain:
    """All transactions after genesis; the hash of every block as it follows from the file."""

    hashes: list[str]
    transactions: list[Tx]
    keys: dict[str, str] = field(default_factory=dict)
    """DID → Multikey of its first key version."""

    @property
    def height(self) -> int:
        return len(self.hashes)

    @property
    def valid(self) -> list[Tx]:
        return [tx for tx in self.transactions if tx.code == VALID]

    def calls(self, function: str) -> list[Tx]:
        """Valid transactions of one function, in the ledger's order."""
        return [tx for tx in self.valid if tx.function == function]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [payload for tx in self.valid for found, payload in tx.events if found == name]

    def written(self, prefix: str) -> dict[str, Any]:
        """The last value of every key whose first part is `prefix`."""
        result = {}
        for tx in self.valid:
            for key, value in tx.writes.items():
                if key.split("\0")[1:2] == [prefix]:
                    result[key] = value
        return result

    def forged_intents(self) -> list[str]:
        """Intents whose signature does not verify under the actor's key on the ledger."""
        return [
            tx.tx_id
            for tx in self.valid
            if tx.function != "network.bootstrap"
            and not signed(self.keys[tx.actor], unb64u(tx.signature), b"flexrelay-intent-v1" + jcs(tx.message))
        ]


def read_chain(path: Path) -> Chain:
    """Decode and check the hash chain. Raises AssertionError for a file that is not whole."""
    chain = Chain([], [])
    for number, payload in enumerate(_payloads(path.read_bytes())):
        previous, data_hash, count = struct.unpack_from(">32s32sI", payload)
        codes, data = payload[68 : 68 + count], payload[68 + count :]
        assert previous.hex() == (chain.hashes[-1] if number else bytes(32).hex()), (
            f"block {number} does not follow the one before"
        )
        assert hashlib.sha256(data).digest() == data_hash, f"block {number} holds other data than its header says"
        head = b"flexrelay-block-v1" + struct.pack(">Q", number) + payload[: 68 + count]
        chain.hashes.append(hashlib.sha256(head).hexdigest())
        if number:
            chain.transactions += [
                _transaction(number, code, item) for code, item in zip(codes, _items(data), strict=True)
            ]
    for tx in chain.valid:
        for item in [tx.args.get("operation"), *(a.get("operation") for a in _parties(tx.args))]:
            if item and item.get("op") == "create":
                chain.keys[f"did:flexrelay:{item['network']}:{_scid(item)}"] = item["key"]
    return chain


def _payloads(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        magic, _, length = struct.unpack_from(">4sQI", data, offset)
        assert magic == b"FXB1", f"no block at byte {offset}"
        yield data[offset + 20 : offset + 20 + length]
        offset += 24 + length


def _items(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        yield data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def _transaction(number: int, code: int, envelope: bytes) -> Tx:
    body = json.loads(envelope[100:])
    document = json.loads(base64.b64decode(body["intent"]))
    intent = document["intent"]
    return Tx(
        number,
        code,
        body["tx_id"],
        body["function"],
        intent["actor"],
        intent["args"],
        intent["intent_id"],
        tuple((name, json.loads(base64.b64decode(data))) for name, data in body["events"]),
        {key: None if data is None else json.loads(base64.b64decode(data)) for key, data in body["writes"]},
        document["signature"],
        intent,
    )


def _parties(args: Any) -> Iterator[dict[str, Any]]:
    """Every object in the arguments of a founding transaction."""
    if isinstance(args, dict):
        yield args
        for value in args.values():
            yield from _parties(value)
    elif isinstance(args, list):
        for value in args:
            yield from _parties(value)


def _scid(operation: dict[str, Any]) -> str:
    """The self-certifying id: base58btc of the multihash (SHA-256) of the canonical operation."""
    digest = hashlib.sha256(jcs(operation)).digest()
    number, text = int.from_bytes(b"\x12\x20" + digest, "big"), ""
    while number:
        number, place = divmod(number, 58)
        text = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[place] + text
    return "z" + text
