"""What cannot be computed again: the secrets that salts come from, and attestations with a signature of their own.

A secret is random, one per device and month. Erasing it makes every leaf of that device and month meaningless: the
hashes that were anchored can no longer be tied to any reading. The file overwrites what it deletes (secure_delete).

Earlier releases signed an attestation for each unsigned reading and kept it here: those stay that reading's evidence.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from flexrelay.journal.port import Entry
from flexrelay.store import Component, Migration, StoreUnavailable, connect, migrate, named, require
from flexrelay.windows.attest import attested
from flexrelay_schemas.measurement import Measurement

_COMPONENT: Final = Component(
    "vault",
    (
        Migration(
            1,
            "secrets and attestations",
            (
                """CREATE TABLE vault_secret (
                    did TEXT NOT NULL, period TEXT NOT NULL, secret BLOB,
                    PRIMARY KEY (did, period)) STRICT, WITHOUT ROWID""",
                """CREATE TABLE vault_attestation (
                    did TEXT NOT NULL, observed_at INTEGER NOT NULL, evidence BLOB NOT NULL,
                    PRIMARY KEY (did, observed_at)) STRICT, WITHOUT ROWID""",
            ),
        ),
    ),
)
_CACHED: Final = 20_000
"""Secrets that are held in memory at most."""

_SALT: Final = b"flexrelay-salt-v1"
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class Erased(Exception):
    """The secret of this device and month was erased: its readings cannot be proved any more."""


@lru_cache(maxsize=1024)
def _month_of_day(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m")


def period_of(observed_at: int) -> str:
    """The month of an instant (UTC), as "2016-05"."""
    return _month_of_day(observed_at // 86_400_000)


def salt_of(secret: bytes, observed_at: int, evidence: bytes) -> bytes:
    """16 bytes for one leaf: HMAC-SHA256 of the instant and the evidence's hash, cut.

    RFC 2104 written out (a secret is shorter than a block): `hmac.digest` gives up the interpreter's lock at every
    call, which costs four times the hashing where other threads are busy.
    """
    content = _SALT + observed_at.to_bytes(8, "big") + sha256(evidence).digest()
    block = secret.ljust(64, b"\0")
    inner = sha256(block.translate(_INNER) + content).digest()
    return sha256(block.translate(_OUTER) + inner).digest()[:16]


class Vault:
    """One SQLite file. Calls block, are short, and may come from any thread. What writes raises StoreUnavailable where
    the place is full or not writable; all raise `store.Damaged` where the file is no good."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """`read_only`: beside the process that has the file open; what would write raises StoreUnavailable."""
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, str], bytes | None] = {}
        self._signed: dict[str, int] = {}
        """By DID: the instant of its last attestation here, -1 where it has none; empty where there are none at all."""
        try:
            self._connection = connect(path, read_only=read_only)
            self._connection.execute("PRAGMA secure_delete = ON")
            (require if read_only else migrate)(self._connection, path, [_COMPONENT])
            self._has_signed = bool(self._rows("SELECT 1 FROM vault_attestation LIMIT 1", ()))
        except sqlite3.Error as error:
            raise named(error, path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def secrets(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes | None]:
        """The secrets of (DID, month) pairs, made where there are none yet; None where it was erased."""
        found: dict[tuple[str, str], bytes | None] = {}
        with self._lock:
            missing = []
            for pair in wanted:
                if pair in self._cache:
                    found[pair] = self._cache[pair]
                    continue
                rows = self._rows("SELECT secret FROM vault_secret WHERE did = ? AND period = ?", pair)
                if not rows:
                    found[pair] = secrets.token_bytes(32)
                    missing.append((*pair, found[pair]))
                else:
                    found[pair] = rows[0][0]
            self._write(("INSERT INTO vault_secret VALUES (?, ?, ?)", missing))
            if len(self._cache) + len(found) > _CACHED:
                self._cache.clear()
            self._cache.update(found)
        return found

    def salt(self, did: str, observed_at: int, evidence: bytes) -> bytes:
        """The salt of one leaf. Raises Erased."""
        period = period_of(observed_at)
        secret = self.secrets([(did, period)])[did, period]
        if secret is None:
            raise Erased(f"the salts of {did} in {period} were erased")
        return salt_of(secret, observed_at, evidence)

    def erase(self, did: str, periods: Sequence[str] = ()) -> int:
        """Erase secrets and attestations of a device, of these months or of all; the number of secrets erased.

        Overwritten in the database and its write-ahead log; copies in backups are the operator's to find.
        """
        with self._lock:
            rows = self._rows("SELECT period FROM vault_secret WHERE did = ? AND secret IS NOT NULL", (did,))
            chosen = [row[0] for row in rows if not periods or row[0] in periods]
            self._cache.clear()
            signed = self._rows("SELECT observed_at FROM vault_attestation WHERE did = ?", (did,))
            gone = [(did, at) for (at,) in signed if period_of(at) in chosen]
            self._write(
                (
                    "UPDATE vault_secret SET secret = NULL WHERE did = ? AND period = ?",
                    [(did, item) for item in chosen],
                ),
                ("DELETE FROM vault_attestation WHERE did = ? AND observed_at = ?", gone),
            )
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return len(chosen)

    def evidence(self, entry: Entry) -> list[tuple[Measurement, bytes]]:
        """Each measurement of an entry with its evidence bytes: the device's signed payload, or the attestation."""
        if (payload := entry.evidence) is not None:
            return [(measurement, payload) for measurement in entry.measurements]
        made = attested(entry)
        if not self._has_signed:
            return list(made)
        return [(item, self.attestation(entry.did, item.observed_at) or data) for item, data in made]

    def attestation(self, did: str, observed_at: int) -> bytes | None:
        """The signed attestation that an earlier release made of this reading."""
        with self._lock:
            last = self._signed.get(did)
            if last is None:
                query = "SELECT coalesce(max(observed_at), -1) FROM vault_attestation WHERE did = ?"
                last = self._signed[did] = int(self._rows(query, (did,))[0][0])
            if observed_at > last:
                return None
            query = "SELECT evidence FROM vault_attestation WHERE did = ? AND observed_at = ?"
            rows = self._rows(query, (did, observed_at))
        return bytes(rows[0][0]) if rows else None

    def _rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise named(error, self._path) from error

    def _write(self, *changes: tuple[str, Sequence[Sequence[object]]]) -> None:
        """Statements with their rows, all or none of them."""
        if not any(rows for _, rows in changes):
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, rows in changes:
                self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"the vault {self._path} cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise named(error, self._path) from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
