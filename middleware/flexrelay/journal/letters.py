"""The dead letters' table: bounded in count and bytes, so that a flood of refused frames cannot fill the disk.

What is full where: a sender (protocol, credential) with `per_sender` letters or its share of the bytes gets no more of
them stored (twice as many for evidence); when all letters together reach `total` or `total_bytes`, the oldest go. Two
values signed for one instant (equivocation) are evidence: they are not displaced by others. Everything that is dropped
is counted on disk.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flexrelay.journal.port import DeadLetter, DeadLetterCount

EVIDENCE_REASONS: Final = frozenset({"equivocation"})

SCHEMA: Final = (
    """CREATE TABLE letter (
        id INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL, message TEXT NOT NULL, field TEXT NOT NULL,
        did TEXT NOT NULL, protocol TEXT NOT NULL, credential TEXT NOT NULL, channel TEXT NOT NULL,
        received_at INTEGER NOT NULL, evidence INTEGER NOT NULL, payload BLOB NOT NULL)""",
    "CREATE INDEX letter_evidence ON letter (evidence, id)",
    "CREATE TABLE letters_dropped (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER, bytes INTEGER)",
    "INSERT INTO letters_dropped VALUES (1, 0, 0)",
)

_INSERT = (
    "INSERT INTO letter (reason, message, field, did, protocol, credential, channel, received_at, evidence, payload) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SELECT = "SELECT id, reason, message, field, did, protocol, credential, channel, received_at, payload FROM letter"


@dataclass(frozen=True, slots=True)
class LetterBounds:
    """How much is kept. Bytes count the payloads and the texts beside them; a sender gets one part in `shares`."""

    total: int = 100_000
    total_bytes: int = 64 * 1024 * 1024
    per_sender: int = 1_000
    shares: int = 8


class LetterBox:
    """Stores letters inside the caller's transaction; after a rollback the caller calls `reload`."""

    def __init__(self, connection: sqlite3.Connection, bounds: LetterBounds) -> None:
        self._connection = connection
        self._bounds = bounds
        self.dropped = 0
        self.reload()

    def reload(self) -> None:
        """Count again what is on disk."""
        rows = self._connection.execute(
            f"SELECT protocol, credential, count(*), sum({_SIZE}) FROM letter GROUP BY protocol, credential"  # noqa: S608
        ).fetchall()
        self._sender_bytes: Counter[tuple[str, str]] = Counter({(row[0], row[1]): row[3] for row in rows})
        self._senders: Counter[tuple[str, str]] = Counter({(row[0], row[1]): row[2] for row in rows})
        self._kept = sum(row[2] for row in rows)
        self._bytes = sum(row[3] for row in rows)

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Store what the bounds allow, count the rest as dropped."""
        dropped = dropped_bytes = 0
        rows = []
        for letter in letters:
            sender = (letter.protocol, letter.credential)
            size = _size(letter)
            evidence = letter.reason in EVIDENCE_REASONS
            twice = 2 if evidence else 1  # a flood of others leaves room for evidence
            most = self._bounds.total_bytes // self._bounds.shares * twice
            # one letter of any size is kept of each sender, so that its reason can be seen
            full = self._senders[sender] > 0 and self._sender_bytes[sender] + size > most
            if full or self._senders[sender] >= self._bounds.per_sender * twice or size > self._bounds.total_bytes:
                dropped += 1
                dropped_bytes += size
                continue
            self._senders[sender] += 1
            self._sender_bytes[sender] += size
            self._kept += 1
            self._bytes += size
            rows.append((*letter[1:9], int(evidence), letter.payload))
        self._connection.executemany(_INSERT, rows)
        while self._kept > self._bounds.total or self._bytes > self._bounds.total_bytes:
            count, size = self._displace()
            dropped += count
            dropped_bytes += size
        if dropped:
            self.dropped += dropped
            self._connection.execute(
                "UPDATE letters_dropped SET count = count + ?, bytes = bytes + ?", (dropped, dropped_bytes)
            )

    def remove(self, letter_ids: Sequence[int]) -> int:
        removed = 0
        for letter_id in letter_ids:
            row = self._connection.execute(
                f"DELETE FROM letter WHERE id = ? RETURNING protocol, credential, {_SIZE}",  # noqa: S608
                (letter_id,),
            ).fetchone()
            if row is not None:
                removed += 1
                self._forget((row[0], row[1]), row[2])
        return removed

    def _displace(self) -> tuple[int, int]:
        """Drop the oldest letters that are no evidence (evidence only when nothing else is left): count, bytes."""
        rows = self._connection.execute(
            f"DELETE FROM letter WHERE id IN (SELECT id FROM letter ORDER BY evidence, id LIMIT ?) "  # noqa: S608
            f"RETURNING protocol, credential, {_SIZE}",
            (max(1, self._kept // 100),),
        ).fetchall()
        for protocol, credential, size in rows:
            self._forget((protocol, credential), size)
        if not rows:  # nothing to drop: the counters are off, count again
            self.reload()
        return len(rows), sum(row[2] for row in rows)

    def _forget(self, sender: tuple[str, str], size: int) -> None:
        self._kept -= 1
        self._bytes -= size
        self._senders[sender] -= 1
        self._sender_bytes[sender] -= size
        if not self._senders[sender]:
            del self._senders[sender], self._sender_bytes[sender]


_SIZE = (
    "length(payload) + length(CAST(message AS BLOB)) + length(CAST(channel AS BLOB)) "
    "+ length(CAST(credential AS BLOB)) + 200"
)


def _size(letter: DeadLetter) -> int:
    return (
        len(letter.payload)
        + len(letter.message.encode())
        + len(letter.channel.encode())
        + len(letter.credential.encode())
        + 200
    )


def select_letters(connection: sqlite3.Connection, after: int, limit: int) -> list[DeadLetter]:
    rows = connection.execute(f"{_SELECT} WHERE id > ? ORDER BY id LIMIT ?", (after, limit)).fetchall()
    return [DeadLetter(*row) for row in rows]


def count_letters(connection: sqlite3.Connection) -> DeadLetterCount:
    kept, size = connection.execute(f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM letter").fetchone()  # noqa: S608
    dropped, dropped_bytes = connection.execute("SELECT count, bytes FROM letters_dropped").fetchone()
    return DeadLetterCount(kept, size, dropped, dropped_bytes)
