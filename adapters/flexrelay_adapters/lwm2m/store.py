"""Registrations on disk, so that after a restart devices go on without registering again.

One small SQLite file (WAL). A stored update survives a kill of the process; after a loss of power the newest ones may
be missing, and their devices register again when an update is answered 4.04.
"""

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from flexrelay_adapters.lwm2m.formats import FormatError
from flexrelay_adapters.lwm2m.links import parse_links
from flexrelay_adapters.lwm2m.registration import Registration

_VERSION: Final = 1
_SCHEMA: Final = """CREATE TABLE registration (
    id TEXT PRIMARY KEY, credential TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL, version TEXT NOT NULL,
    queue INTEGER NOT NULL, lifetime_s INTEGER NOT NULL, objects TEXT NOT NULL, host TEXT NOT NULL,
    port INTEGER NOT NULL, secure INTEGER NOT NULL, registered_at REAL NOT NULL, seen_at REAL NOT NULL
) STRICT, WITHOUT ROWID"""
_PUT: Final = "INSERT OR REPLACE INTO registration VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SEEN: Final = (
    "UPDATE registration SET seen_at = ?, host = ?, port = ?, secure = ?, lifetime_s = ?, queue = ? WHERE id = ?"
)


class StoreFailed(Exception):
    """Nothing can be stored now (disk full); nothing of the batch may be answered."""


class RegistrationStore:
    """One writer; calls come from the event loop's executor, one after the other."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file of a newer version or none of ours."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._connection.execute("BEGIN")
                self._connection.execute(_SCHEMA)
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")
                self._connection.execute("COMMIT")
            elif version != _VERSION:
                raise ValueError(f"{path} is of version {version}; this program knows {_VERSION}")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(f"{path}: {error}") from None
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="lwm2m registrations")

    def load(self) -> list[Registration]:
        """Those that are stored; rows that cannot be read are left out."""
        found = []
        for row in self._connection.execute("SELECT * FROM registration"):
            id_, credential, endpoint, version, queue, lifetime_s, objects, host, port, secure, registered, seen = row
            try:
                paths = parse_links(objects.encode())
            except FormatError:
                continue
            found.append(
                Registration(
                    id_,
                    credential,
                    endpoint,
                    version,
                    bool(queue),
                    lifetime_s,
                    paths,
                    (host, port),
                    bool(secure),
                    registered,
                    seen,
                )
            )
        return found

    def write(
        self, full: Sequence[tuple[object, ...]], seen: Sequence[tuple[object, ...]], gone: Sequence[tuple[str]]
    ) -> None:
        """One transaction: whole rows, rows seen again, and ids that go. Raises StoreFailed."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("DELETE FROM registration WHERE id = ?", gone)
                connection.executemany(_PUT, full)
                connection.executemany(_SEEN, seen)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from None

    def close(self) -> None:
        self.executor.shutdown(wait=True)
        self._connection.close()
