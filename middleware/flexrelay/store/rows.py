"""Many rows in one statement.

`executemany` gives up the interpreter's lock and fights for it again at every row: beside a thread that is busy this
costs more than the row itself. One statement of many rows does so once.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

_AT_ONCE: Final = 256


def insert_rows(
    connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[object]], conflict: str = ""
) -> None:
    """INSERT INTO `into` VALUES `rows` `conflict`; all rows have as many values as the first one."""
    if not rows:
        return
    width = len(rows[0])
    at_once = min(_AT_ONCE, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // width)
    whole = len(rows) - len(rows) % at_once
    for offset in range(0, whole, at_once):
        values = list(chain.from_iterable(rows[offset : offset + at_once]))
        connection.execute(_statement(into, width, at_once, conflict), values)
    if whole < len(rows):
        connection.executemany(_statement(into, width, 1, conflict), rows[whole:])


@lru_cache(maxsize=64)
def _statement(into: str, width: int, count: int, conflict: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {', '.join([row] * count)} {conflict}"  # noqa: S608 - the callers' constants
