"""An organisation's journal, vault and windows, read from their files: frames, signatures, registers, Merkle roots.

Segment layout 1: per entry flags u8, partition u8, lengths of did u8, protocol u8, measurements u16, credential u16,
channel u16, payload u32, received_at i64; then the texts, the measurements (skipped: the auditor reads the payload),
the payload. A segment's hash is SHA-256(hash before ‖ first position ‖ last ‖ newest receive time ‖ body).

What a device has not signed its gateway attests, and these bytes are the leaf: {v: 2, attestation: {did, frame_sha256,
network, observed_at, registers}}.
"""

import hashlib
import hmac
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acceptance.independent.canon import jcs, signed, unb64u
from acceptance.independent.frames import readings_of

_ENTRY = struct.Struct("<BBBBHHHIq")


@dataclass(frozen=True)
class Frame:
    """A journalled frame: the sender that the gateway identified and the exact bytes."""

    position: int
    did: str
    protocol: str
    is_signed: bool
    payload: bytes


@dataclass
class Holder:
    """What one organisation holds. Registers and evidence bytes by (device, instant)."""

    org: str
    frames: list[Frame]
    registers: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    payloads: dict[tuple[str, int], bytes] = field(default_factory=dict)
    attested: dict[tuple[str, int], str] = field(default_factory=dict)
    """(Device, instant) → protocol of what the device has not signed."""
    refused: list[str] = field(default_factory=list)
    """Frames that the auditor would not count, and why."""

    def instants(self, did: str) -> list[int]:
        return sorted(instant for device, instant in self.registers if device == did)

    def net_j(self, did: str, start: int, end: int) -> int | None:
        """Withdrawal in [start, end] from the registers at exactly both ends; None where one is missing."""
        first, last = self.registers.get((did, start)), self.registers.get((did, end))
        if first is None or last is None:
            return None
        return (last["import_j"] - first["import_j"]) - (last["export_j"] - first["export_j"])


def read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def read_holder(folder: Path, org: str, keys: Mapping[str, str], network: str) -> Holder:
    """Decode the journal and its hash chain, and check every reading's signature under the ledger's keys."""
    holder = Holder(org, list(_frames(folder / org / "journal.db")))
    for frame in holder.frames:
        if not frame.is_signed:
            _attested(holder, frame, network)
            continue
        document = json.loads(frame.payload)
        reading: dict[str, Any] = document["reading"]
        place = reading["did"], reading["observed_at"]
        wrong = ""
        if frame.protocol != "mqtt" or reading["did"] != frame.did or reading["network"] != network:
            wrong = "is not the sender's own signed reading"
        elif frame.did not in keys or reading["key_version"] != 1:
            wrong = "names a key that the ledger does not know"
        elif not signed(keys[frame.did], unb64u(document["signature"]), b"flexrelay-reading-v1" + jcs(reading)):
            wrong = "is not signed by its device"
        elif holder.registers.get(place, reading["registers"]) != reading["registers"]:
            wrong = "contradicts another reading of the same instant"
        if wrong:
            holder.refused.append(f"{org} {frame.position}: {wrong}")
            continue
        holder.registers[place] = reading["registers"]
        holder.payloads.setdefault(place, frame.payload)
    return holder


def _attested(holder: Holder, frame: Frame, network: str) -> None:
    for instant, registers in readings_of(frame.protocol, frame.payload).items():
        place = frame.did, instant
        if holder.registers.get(place, registers) != registers:
            holder.refused.append(f"{holder.org} {frame.position}: contradicts another reading of the same instant")
            continue
        statement = {
            "did": frame.did,
            "frame_sha256": hashlib.sha256(frame.payload).hexdigest(),
            "network": network,
            "observed_at": instant,
            "registers": registers,
        }
        holder.registers[place] = registers
        holder.attested[place] = frame.protocol
        holder.payloads.setdefault(place, jcs({"v": 2, "attestation": statement}))


def dead_letters(folder: Path, org: str) -> list[tuple[str, bytes]]:
    """(reason, exact bytes) of every refused frame."""
    with closing(read_only(folder / org / "journal.db")) as connection:
        return connection.execute("SELECT reason, payload FROM letter ORDER BY id").fetchall()


def _frames(path: Path) -> Iterator[Frame]:
    before, position = bytes(32), 1
    with closing(read_only(path)) as connection:
        for first, last, newest, previous, digest, body in connection.execute("SELECT * FROM segment ORDER BY first"):
            assert (first, previous) == (position, before), f"segment {first} does not follow the one before"
            head = previous + struct.pack("<qqq", first, last, newest)
            assert hashlib.sha256(head + body).digest() == digest, f"segment {first} is changed"
            before = digest
            offset = 0
            while offset < len(body):
                frame, offset = _frame(body, offset, position)
                position += 1
                yield frame
            assert position == last + 1, f"segment {first} does not hold what it says"


def _frame(body: bytes, offset: int, position: int) -> tuple[Frame, int]:
    flags, _, did, protocol, measurements, credential, channel, payload, _ = _ENTRY.unpack_from(body, offset)
    offset += _ENTRY.size
    name = body[offset : offset + did].decode()
    spoken = body[offset + did : offset + did + protocol].decode()
    offset += did + protocol + credential + channel
    for _ in range(measurements):
        offset += 18
        (mask,) = struct.unpack_from("<H", body, offset)
        offset += 2 + 8 * mask.bit_count()
    return Frame(position, name, spoken, bool(flags & 1), body[offset : offset + payload]), offset + payload


@dataclass(frozen=True)
class AnchorCheck:
    """One anchor of an organisation: what it says, and the root that its readings' bytes and salts give."""

    anchor_id: str
    stated_root: str
    windows: int
    leaves: int
    recomputed_root: str
    instants: tuple[tuple[str, int], ...]
    """(device, instant) of every reading under it."""


def anchors_of(folder: Path, holder: Holder) -> list[AnchorCheck]:
    """Every anchor recomputed from the journal's bytes; the store only says which windows it covers, in what order."""
    with closing(read_only(folder / holder.org / "vault.db")) as connection:
        secrets = {(did, month): secret for did, month, secret in connection.execute("SELECT * FROM vault_secret")}
    by_device: dict[str, list[int]] = {}
    for did, instant in sorted(holder.payloads):
        by_device.setdefault(did, []).append(instant)
    result = []
    with closing(read_only(folder / holder.org / "store.db")) as connection:
        for anchor_id, root in connection.execute("SELECT id, root FROM window_anchor ORDER BY number").fetchall():
            rows = connection.execute(
                "SELECT d.did, r.start_ms, r.end_ms, r.revision, r.document FROM window_revision r "
                "JOIN window_device d ON d.id = r.device WHERE r.anchor = ? ORDER BY r.anchor_index",
                (anchor_id,),
            )
            leaves, covered = [], []
            for did, start, end, revision, document in rows:
                inside = [t for t in _known(connection, did, start, end, revision) if (did, t) in holder.payloads]
                window = json.loads(document)
                hashes = [_leaf(secrets[did, _month(t)], t, holder.payloads[did, t]) for t in inside]
                window |= {"device": did, "leaves": len(inside), "revision": revision, "root": tree_root(hashes).hex()}
                leaves.append(hashlib.sha256(b"\x00" + jcs(window)).digest())
                covered += [(did, t) for t in inside]
            recomputed = tree_root(leaves).hex()
            result.append(AnchorCheck(anchor_id, root, len(leaves), len(covered), recomputed, tuple(covered)))
    return result


def _known(connection: sqlite3.Connection, did: str, start: int, end: int, revision: int) -> list[int]:
    """Instants in (start, end] that this revision of the window knows."""
    rows = connection.execute(
        "SELECT l.observed_at FROM window_leaf l JOIN window_device d ON d.id = l.device WHERE d.did = ? "
        "AND l.observed_at > ? AND l.observed_at <= ? AND l.since BETWEEN 1 AND ? ORDER BY 1",
        (did, start, end, revision),
    )
    return [row[0] for row in rows]


def _month(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).strftime("%Y-%m")


def _leaf(secret: bytes, instant: int, payload: bytes) -> bytes:
    content = b"flexrelay-salt-v1" + struct.pack(">q", instant) + hashlib.sha256(payload).digest()
    salt = hmac.new(secret, content, "sha256").digest()[:16]
    return hashlib.sha256(b"\x00" + salt + payload).digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1, recursively as it is written there (leaves are hashed already)."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()
