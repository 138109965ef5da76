"""A damaged database is named: which file, and what to do. What is only full or busy is not called damaged."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.state import Entry, State
from flexrelay.store import Component, Damaged, Migration, Store, connect, named
from flexrelay.windows import Vault

WIDE = Component("wide", (Migration(1, "rows", ("CREATE TABLE wide (id INTEGER PRIMARY KEY, text TEXT) STRICT",)),))


def fill(path: Path, statement: str, *rows: tuple[object, ...]) -> None:
    """Enough rows for many pages, all of them in the file itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN")
        database.executemany(statement, rows)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def tear(path: Path, after: int = 3) -> None:
    """Overwrite the beginning of every page but the first ones: the file opens, and reading it fails."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    for page in range(after * size, len(data), size):
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)


def rows(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM wide").fetchall()


async def test_a_store_names_its_file_when_reading_and_when_writing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with Store(path, [WIDE]):
        pass
    fill(path, "INSERT INTO wide VALUES (?, ?)", *((number, "x" * 500) for number in range(500)))
    tear(path)
    async with Store(path, [WIDE]) as store:
        with pytest.raises(Damaged, match=r"store\.db is damaged .*malformed.*: stop, and put the whole folder back"):
            await store.read(rows)
        with pytest.raises(Damaged, match=r"store\.db is damaged"):
            await store.write(lambda connection: connection.execute("UPDATE wide SET text = 'y'").rowcount)


@pytest.mark.parametrize("open_", [Vault, PrivateValues, connect])
def test_what_is_no_database_is_named_at_once(tmp_path: Path, open_: Callable[[Path], object]) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"\xff" * 8192)
    with pytest.raises(Exception, match="file is not a database") as caught:
        open_(path)
    assert str(path) in str(caught.value)


async def test_a_store_that_is_no_database_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"\xff" * 8192)
    with pytest.raises(Damaged, match=r"store\.db is damaged \(file is not a database\)"):
        await Store(path, [WIDE]).__aenter__()


def test_a_vault_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    Vault(path).close()
    pairs = [(f"did:flexrelay:pilot:z{number}", "2026-01") for number in range(500)]
    fill(path, "INSERT INTO vault_secret VALUES (?, ?, ?)", *((*pair, bytes(400)) for pair in pairs))
    tear(path, 5)
    with Vault(path) as vault, pytest.raises(Damaged, match=r"vault\.db is damaged"):
        vault.secrets(pairs)


def test_a_state_that_is_damaged_while_it_is_used_says_that_it_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = State(path)
    entries = {f"key-{number:05}": Entry(bytes(800), 0, 0, ("dso",)) for number in range(600)}
    state.apply(0, bytes(32), {}, entries)
    state.close()
    fill(path, "DELETE FROM tx WHERE id = ?", (b"",))
    again = State(path)
    tear(path)
    for read in (
        lambda: [again.get(key) for key in entries],
        lambda: list(again.range("key-", "key.")),
        lambda: again.versions("key-", "key."),
    ):
        with pytest.raises(Damaged, match=r"state\.db is damaged .*: stop, and delete it: it is made again from"):
            read()
    again.close()


def test_only_damage_is_named(tmp_path: Path) -> None:
    busy = sqlite3.OperationalError("database is locked")
    assert named(busy, tmp_path) is busy
    told = Damaged("told already")
    assert named(told, tmp_path) is told
