"""Many rows in one statement are the rows that `executemany` would write, however many there are."""

import sqlite3
from contextlib import closing

import pytest

from flexrelay.store import insert_rows

_TABLE = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c BLOB) STRICT"


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 511, 512, 1_000])
@pytest.mark.parametrize("variables", [0, 999, 7])
def test_any_number_of_rows(count: int, variables: int) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        if variables:
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, variables)
        connection.execute(_TABLE)
        rows = [(number, f"é{number}", None if number % 3 else b"x" * number) for number in range(count)]
        insert_rows(connection, "t", rows)
        assert connection.execute("SELECT * FROM t ORDER BY a").fetchall() == rows


def test_what_stands_there_already_is_treated_as_the_clause_says() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(_TABLE)
        first = [(number, "old", b"") for number in range(0, 600, 2)]
        insert_rows(connection, "t (a, b, c)", first)
        second = [(number, "new", b"") for number in range(600)]
        insert_rows(connection, "t (a, b, c)", second, "ON CONFLICT DO NOTHING")
        assert connection.execute("SELECT b, count(*) FROM t GROUP BY b").fetchall() == [("new", 300), ("old", 300)]
        insert_rows(connection, "t", second, "ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE excluded.a >= 300")
        assert connection.execute("SELECT b, count(*) FROM t GROUP BY b").fetchall() == [("new", 450), ("old", 150)]
        with pytest.raises(sqlite3.IntegrityError):
            insert_rows(connection, "t", second)


def test_within_one_call_the_order_of_the_rows_counts() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(_TABLE)
        rows = [(1, f"{number}", b"") for number in range(300)]
        insert_rows(connection, "t", rows, "ON CONFLICT DO NOTHING")
        assert connection.execute("SELECT b FROM t").fetchall() == [("0",)]
