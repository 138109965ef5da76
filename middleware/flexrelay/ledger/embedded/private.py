"""Private values: never on the chain, hence durable in their own database, and gone without a trace when purged.

A prepared transaction's values wait in `staged` until its envelope is judged; a block moves them or drops them.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flexrelay.ledger.embedded.errors import LedgerCorrupt
from flexrelay.ledger.port import LedgerUnavailable
from flexrelay.store import is_outside, named, own

_LOG = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS private (
    collection TEXT NOT NULL, key_hash TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (collection, key_hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS staged (
    tx_id TEXT NOT NULL, collection TEXT NOT NULL, key_hash TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    timestamp INTEGER NOT NULL, PRIMARY KEY (tx_id, collection, key_hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (one INTEGER PRIMARY KEY CHECK (one = 1), height INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class PrivateChange:
    """What a valid transaction does to one private key; `value_hash` is None when it is purged."""

    tx_id: str
    collection: str
    key_hash: str
    value_hash: str | None


class PrivateValues:
    """Used by one caller at a time. `height`: blocks below it have been applied here."""

    def __init__(self, path: Path | str) -> None:
        """Open or create. Raises LedgerCorrupt where the file is no good, LedgerUnavailable where it cannot be used."""
        self._path = path
        if path != ":memory:":
            own(Path(path))
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
            row = self._db.execute("SELECT height FROM meta").fetchone()
        except sqlite3.Error as error:
            if is_outside(error):
                raise LedgerUnavailable(f"{path} cannot be used now: {error}") from error
            raise LedgerCorrupt(f"{path}: {error}; restore it from a copy") from error
        self.height: int = row[0] if row else 0
        self._unscrubbed = False
        """A copy of a purged value may stand in the write-ahead log."""

    def close(self) -> None:
        self._db.close()

    def get(self, collection: str, key: str) -> bytes | None:
        try:
            row = self._db.execute(
                "SELECT value FROM private WHERE collection = ? AND key_hash = ?",
                (collection, hashlib.sha256(key.encode()).hexdigest()),
            ).fetchone()
        except sqlite3.DatabaseError as error:
            raise named(error, self._path) from error
        return None if row is None else row[0]

    def stage(self, tx_id: str, timestamp: int, values: Sequence[tuple[str, str, str, bytes]]) -> None:
        """Keep (collection, key hash, key, value) until the transaction is judged; durable when it returns.

        Raises LedgerUnavailable.
        """
        rows = [(tx_id, name, key_hash, key.encode(), value, timestamp) for name, key_hash, key, value in values]
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise LedgerUnavailable(f"private values cannot be stored: {error}", tx_id) from error

    def apply(self, number: int, judged: Sequence[str], changes: Sequence[PrivateChange]) -> None:
        """Apply a block: move what valid transactions staged, purge what they purge, drop the rest.

        `judged`: ids of all its transactions; `changes` in block order. Raises LedgerUnavailable.
        """
        purged = self._unscrubbed
        try:
            self._db.execute("BEGIN")
            for change in changes:
                place = (change.collection, change.key_hash)
                if change.value_hash is None:
                    self._db.execute("DELETE FROM private WHERE collection = ? AND key_hash = ?", place)
                    purged = True
                else:
                    self._db.execute(
                        "INSERT OR REPLACE INTO private SELECT collection, key_hash, key, value FROM staged "
                        "WHERE tx_id = ? AND collection = ? AND key_hash = ?",
                        (change.tx_id, *place),
                    )
            self._db.executemany("DELETE FROM staged WHERE tx_id = ?", [(tx_id,) for tx_id in judged])
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (1, ?)", (number + 1,))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise LedgerUnavailable(f"private values cannot be written: {error}") from error
        self.height = number + 1
        if purged:
            self.scrub()

    def discard(self, before_timestamp: int) -> None:
        """Drop what was staged by transactions that are too old to be submitted."""
        try:
            dropped = self._db.execute("DELETE FROM staged WHERE timestamp < ?", (before_timestamp,)).rowcount
        except sqlite3.DatabaseError as error:
            raise named(error, self._path) from error
        if dropped > 0 or self._unscrubbed:
            self.scrub()

    def scrub(self) -> None:
        """Leave no copy of a purged value behind in the write-ahead log. Without room for it now: the next time."""
        try:
            (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:  # what was to be written is
            self._unscrubbed = True
            _LOG.warning("copies of purged values stay in the log of %s for now: %s", self._path, error)
        else:
            self._unscrubbed = bool(busy)

    def values(self) -> Iterator[tuple[str, str, bytes, bytes]]:
        """Every value: (collection, key hash, key, value)."""
        yield from self._db.execute("SELECT collection, key_hash, key, value FROM private ORDER BY 1, 2")

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
