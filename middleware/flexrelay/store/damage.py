"""A database file that SQLite finds damaged: which one it is, and what to do about it."""

import sqlite3
from pathlib import Path
from typing import Final

RESTORE: Final = "stop, and put the whole folder back from a backup"
_OUTSIDE: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN}
)
"""Primary result codes that say nothing about the statement and may be gone the next time."""


class Damaged(sqlite3.DatabaseError):
    """The file itself is no good; the message names it and says what to do."""


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is damaged (rather than full, locked or unreachable)."""
    return isinstance(error, sqlite3.Error) and (
        getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def is_outside(error: BaseException) -> bool:
    """Whether SQLite says that the place is the trouble (full, locked, unreachable), neither the file nor the call."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _OUTSIDE


def named(error: sqlite3.Error, path: Path | str, remedy: str = RESTORE) -> sqlite3.Error:
    """`error` with its file's name when it tells of damage; any other as it is. To be raised from `error`."""
    if not is_damage(error) or isinstance(error, Damaged):
        return error
    found = Damaged(f"{path} is damaged ({error}): {remedy}")
    found.sqlite_errorcode = error.sqlite_errorcode
    found.sqlite_errorname = error.sqlite_errorname
    return found
