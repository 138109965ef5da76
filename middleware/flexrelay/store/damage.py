"""A database file that SQLite finds damaged: which one it is, and what to do about it."""

import sqlite3
from pathlib import Path
from typing import Final

RESTORE: Final = "stop, and put the whole folder back from a backup"


class Damaged(sqlite3.DatabaseError):
    """The file itself is no good; the message names it and says what to do."""


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is damaged (rather than full, locked or unreachable)."""
    return isinstance(error, sqlite3.Error) and (
        getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def named(error: sqlite3.Error, path: Path | str, remedy: str = RESTORE) -> sqlite3.Error:
    """`error` with its file's name when it tells of damage; any other as it is. To be raised from `error`."""
    if not is_damage(error) or isinstance(error, Damaged):
        return error
    found = Damaged(f"{path} is damaged ({error}): {remedy}")
    found.sqlite_errorcode = error.sqlite_errorcode
    found.sqlite_errorname = error.sqlite_errorname
    return found
