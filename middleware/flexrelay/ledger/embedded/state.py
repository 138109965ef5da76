"""The world state: SQLite, derived from the blocks, with a bounded cache of what was read and written last.

Keys are stored as the bytes of their UTF-8 form, so that they are ordered as the port says. Hashes of private values
live in the same table under `hash_key`, beyond every key that a contract can name.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from flexrelay.ledger.embedded.block import CODE_OF, CODES
from flexrelay.ledger.port import Committed, LedgerUnavailable, Validation
from flexrelay.store import is_outside, named, own
from flexrelay_contracts.context import MAX_UNICODE

_CACHE_ENTRIES = 20_000
_CACHE_BYTES = 32_000_000
_ENTRY_BYTES = 300

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, block INTEGER NOT NULL, tx INTEGER NOT NULL, policy TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tx (id BLOB PRIMARY KEY, block INTEGER NOT NULL, code INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (one INTEGER PRIMARY KEY CHECK (one = 1), height INTEGER NOT NULL, hash BLOB NOT NULL);
"""

_GET = "SELECT value, block, tx, policy FROM state WHERE key = ?"

_UNKNOWN: Final = object()
_REMEDY: Final = "stop, and delete it: it is made again from the blocks at the next start"

Version = tuple[int, int]


class Entry(NamedTuple):
    """A committed value and its version: the block and the place in it of the transaction that wrote it last."""

    value: bytes
    block: int
    tx: int
    policy: tuple[str, ...] | None

    @property
    def version(self) -> Version:
        return self.block, self.tx


class StateError(Exception):
    """The state database cannot be read or written (damaged, or no space)."""


def hash_key(collection: str, key_hash: str) -> str:
    """Where the hash of a private value stands in the state."""
    return f"{MAX_UNICODE}{collection}\x00{key_hash}"


class State:
    """Used by one caller at a time. `height` blocks are applied, the last one has the hash `last_hash`.

    What reads raises `store.Damaged` where the file is no good."""

    def __init__(self, path: Path | str) -> None:
        """Open or create; an empty path makes a temporary one. Raises StateError where the file is no good, and
        LedgerUnavailable where it cannot be used now."""
        self._path = path
        try:
            if path:
                own(Path(path))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=NORMAL", "cache_size=-32000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
            row = self._db.execute("SELECT height, hash FROM meta").fetchone()
            policies = self._db.execute("SELECT 1 FROM state WHERE policy IS NOT NULL LIMIT 1").fetchone()
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, OSError) or is_outside(error):
                raise LedgerUnavailable(f"{path} cannot be used now: {error}") from error
            raise StateError(f"{path}: {error}") from error
        self.height: int = row[0] if row else 0
        self.last_hash: bytes = row[1] if row else bytes(32)
        self._cache: dict[str, Entry | None] = {}
        self._cache_bytes = 0
        self._cursor = self._db.cursor()
        self._db.execute("BEGIN")  # a read in a transaction that is open costs no locking
        self.has_policies = policies is not None
        """Whether a key may have a policy: most networks never set one, and need not look for it."""

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> Entry | None:
        known = self._cache.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return known  # type: ignore[return-value]  # an entry, or None for a key that is not there
        try:
            row = self._cursor.execute(_GET, (key.encode(),)).fetchone()
        except sqlite3.DatabaseError as error:
            raise named(error, self._path, _REMEDY) from error
        entry = None if row is None else _entry(*row)
        self._remember(key, entry)
        return entry

    def range(self, start: str, end: str) -> Iterator[tuple[str, Entry]]:
        """All entries in [start, end) in key order."""
        for key, *rest in self._between("value, block, tx, policy", start, end):
            yield key.decode(), _entry(*rest)

    def versions(self, start: str, end: str) -> list[tuple[str, int, int]]:
        """(key, block, tx) of [start, end) in key order."""
        return [(key.decode(), block, tx) for key, block, tx in self._between("block, tx", start, end)]

    def _between(self, columns: str, start: str, end: str) -> Iterator[tuple[Any, ...]]:
        query = f"SELECT key, {columns} FROM state WHERE key >= ? AND key < ? ORDER BY key"  # noqa: S608
        try:
            yield from self._db.execute(query, (start.encode(), min(end, MAX_UNICODE).encode()))
        except sqlite3.DatabaseError as error:
            raise named(error, self._path, _REMEDY) from error

    def transaction(self, tx_id: str) -> Committed | None:
        """Where the transaction stands, by its first occurrence."""
        given = bytes.fromhex(tx_id)
        try:
            row = self._cursor.execute("SELECT block, code FROM tx WHERE id = ?", (given,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise named(error, self._path, _REMEDY) from error
        return None if row is None else Committed(tx_id, row[0], CODES[row[1]])

    def apply(
        self,
        number: int,
        block_hash: bytes,
        transactions: Mapping[str, Validation],
        changes: Mapping[str, Entry | None],
    ) -> None:
        """Apply a block in one database transaction. `transactions`: validations by tx id, without the duplicates.

        Raises StateError; the state is then as it was before.
        """
        puts = [(key.encode(), e.value, e.block, e.tx, _policy_text(e.policy)) for key, e in changes.items() if e]
        deletes = [(key.encode(),) for key, entry in changes.items() if entry is None]
        ids = [(bytes.fromhex(tx_id), number, CODE_OF[validation]) for tx_id, validation in transactions.items()]
        try:
            self._db.execute("COMMIT")
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)", puts)
            self._db.executemany("DELETE FROM state WHERE key = ?", deletes)
            self._db.executemany("INSERT INTO tx VALUES (?, ?, ?)", ids)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?)", (number + 1, block_hash))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StateError(f"the state database cannot be written: {error}") from error
        finally:
            self._db.execute("BEGIN")
        self.height, self.last_hash = number + 1, block_hash
        for key, entry in changes.items():
            self._remember(key, entry)
            if entry is not None and entry.policy is not None:
                self.has_policies = True

    def policy(self, key: str) -> tuple[str, ...] | None:
        """The organisations whose endorsement a write of the key needs."""
        entry = self.get(key) if self.has_policies else None
        return None if entry is None else entry.policy

    def entries(self) -> Iterator[tuple[bytes, bytes, int, int, str | None]]:
        """Every row of the state in key order: (key, value, block, tx, policy)."""
        yield from self._db.execute("SELECT key, value, block, tx, policy FROM state ORDER BY key")

    def transactions(self) -> Iterator[tuple[bytes, int, int]]:
        """Every transaction that stands: (id, block, code), by id."""
        yield from self._db.execute("SELECT id, block, code FROM tx ORDER BY id")

    def _remember(self, key: str, entry: Entry | None) -> None:
        if len(self._cache) >= _CACHE_ENTRIES or self._cache_bytes > _CACHE_BYTES:
            self._cache.clear()
            self._cache_bytes = 0
        self._cache[key] = entry
        self._cache_bytes += _ENTRY_BYTES + (len(entry.value) if entry else 0)


def _entry(value: bytes, block: int, tx: int, policy: str | None) -> Entry:
    return Entry(value, block, tx, None if policy is None else tuple(json.loads(policy)))


def _policy_text(policy: tuple[str, ...] | None) -> str | None:
    return None if policy is None else json.dumps(policy)
