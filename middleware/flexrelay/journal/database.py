"""Opening the journal's SQLite file: damage is named at once, a newer file is refused, migrations run with a backup."""

import sqlite3
import struct
from pathlib import Path
from typing import Final

from flexrelay.journal.port import JournalCorrupt
from flexrelay.store import Component, connect, is_damage, migrate, own, require

_HEADER: Final = b"SQLite format 3\x00"


def open_journal(path: Path, component: Component) -> sqlite3.Connection:
    """A connection in autocommit mode (WAL, synchronous=FULL) to the file at its newest version.

    Raises JournalCorrupt, store.migrations.MigrationError, or sqlite3.OperationalError where nothing can be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_header(path)
    try:
        own(path)
    except OSError as error:
        raise sqlite3.OperationalError(f"{path}: {error.strerror}") from error
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _check_length(path, connection)
        migrate(connection, path, [component])
    except sqlite3.DatabaseError as error:
        connection.close()
        if is_damage(error):
            raise JournalCorrupt(damaged(path, str(error))) from error
        raise
    except UnicodeDecodeError as error:  # SQLite's message quotes a schema that is no text any more
        connection.close()
        raise JournalCorrupt(damaged(path, "its schema is not readable")) from error
    except BaseException:
        connection.close()
        raise
    return connection


def read_journal(path: Path, component: Component) -> sqlite3.Connection:
    """A connection that only reads, beside the process that may have the file open. Raises StoreUnavailable,
    MigrationError where the file is at another version, store.Damaged."""
    connection = connect(path, read_only=True)
    try:
        require(connection, path, [component])
    except BaseException:
        connection.close()
        raise
    return connection


def damaged(path: Path, what: str) -> str:
    return (
        f"journal {path} is damaged: {what}. Stop the gateway and restore a backup; do not delete the file, it holds "
        "readings that devices were told are kept"
    )


def _check_header(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        if file.read(16) != _HEADER:
            raise JournalCorrupt(damaged(path, "it does not begin as a SQLite file"))


def _check_length(path: Path, connection: sqlite3.Connection) -> None:
    """A file that is shorter than its header says has lost its end; SQLite itself would notice only on reading it."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100:
        if header:
            raise JournalCorrupt(damaged(path, "its header is cut off"))
        return
    (page_size,) = struct.unpack_from(">H", header, 16)
    changed, pages = struct.unpack_from(">II", header, 24)
    (valid_for,) = struct.unpack_from(">I", header, 92)
    expected = (65536 if page_size == 1 else page_size) * pages
    if changed == valid_for and path.stat().st_size < expected:
        raise JournalCorrupt(damaged(path, f"it has {path.stat().st_size} of {expected} bytes"))
