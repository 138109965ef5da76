"""The store: group commit, savepoints, durability, migrations."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flexrelay.store import Component, Migration, MigrationError, Store, StoreUnavailable, connect, migrate

FIRST = Migration(1, "things", ("CREATE TABLE thing (tenant TEXT, name TEXT UNIQUE) STRICT",))
SECOND = Migration(
    2, "colour", ("ALTER TABLE thing ADD COLUMN colour TEXT", "CREATE INDEX by_colour ON thing (colour)")
)
OLD = Component("things", (FIRST,))
NEW = Component("things", (FIRST, SECOND))


def insert(name: str) -> object:
    return lambda connection: connection.execute("INSERT INTO thing (tenant, name) VALUES ('t', ?)", (name,)).rowcount


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM thing ORDER BY name")]


async def test_writes_that_share_a_commit_fail_alone(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.db", [OLD]) as store:
        results = await asyncio.gather(
            *(store.write(insert(name)) for name in "abacb"),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        assert [r if isinstance(r, int) else type(r) for r in results] == [
            1,
            1,
            sqlite3.IntegrityError,
            1,
            sqlite3.IntegrityError,
        ]
        assert await store.read(names) == ["a", "b", "c"]


async def test_a_failed_write_leaves_nothing_of_itself(tmp_path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO thing VALUES ('t', 'half')")
        raise ValueError("no")

    async with Store(tmp_path / "s.db", [OLD]) as store:
        done = await asyncio.gather(store.write(half), store.write(insert("whole")), return_exceptions=True)  # type: ignore[arg-type]
        assert isinstance(done[0], ValueError)
        assert await store.read(names) == ["whole"]


async def test_cancelling_the_caller_does_not_take_the_write_back(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.db", [OLD]) as store:
        task = asyncio.create_task(store.write(insert("a")))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.write(insert("b"))  # type: ignore[arg-type]
        assert await store.read(names) == ["a", "b"]


async def test_the_reader_cannot_write_and_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db", [OLD])
    async with store:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await store.read(insert("a"))  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await store.read(names)


async def test_a_full_disk_is_an_error_and_then_goes_on(tmp_path: Path) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def big(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO thing VALUES ('t', ?)", ("x" * 200_000,))

    async with Store(tmp_path / "s.db", [OLD]) as store:
        await store.write(fill)
        done = await asyncio.gather(*(store.write(big) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(item, StoreUnavailable) for item in done)
        await store.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
        await store.write(insert("after"))  # type: ignore[arg-type]
        assert await store.read(names) == ["after"]


def test_migrations_go_forward_with_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with closing(connect(path)) as connection:
        assert migrate(connection, path, [OLD]) is None
        connection.execute("INSERT INTO thing VALUES ('t', 'a')")
    with closing(connect(path)) as connection:
        backup = migrate(connection, path, [NEW])
        assert connection.execute("SELECT name, colour FROM thing").fetchall() == [("a", None)]
        assert migrate(connection, path, [NEW]) is None
    assert backup is not None
    with closing(sqlite3.connect(backup)) as kept:
        assert kept.execute("SELECT * FROM thing").fetchall() == [("t", "a")]


def test_a_newer_file_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with closing(connect(path)) as connection:
        migrate(connection, path, [NEW])
        with pytest.raises(MigrationError, match="newer program"):
            migrate(connection, path, [OLD])


def test_a_failing_migration_is_rolled_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    bad = Component("things", (FIRST, Migration(2, "bad", ("CREATE TABLE extra (a)", "CREATE TABLE thing (a)"))))
    with closing(connect(path)) as connection:
        migrate(connection, path, [OLD])
        with pytest.raises(MigrationError, match="bad"):
            migrate(connection, path, [bad])
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        assert "extra" not in tables
        migrate(connection, path, [NEW])


def test_numbers_have_no_holes() -> None:
    with pytest.raises(ValueError, match="numbered"):
        Component("things", (SECOND,))


async def test_another_process_reads_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Store(path, [OLD]) as store:
        await store.write(insert("a"))  # type: ignore[arg-type]
        async with Store(path, [OLD], read_only=True) as beside:
            await store.write(insert("b"))  # type: ignore[arg-type]
            assert await beside.read(names) == ["a", "b"]
            with pytest.raises(StoreUnavailable, match="not open for writing"):
                await beside.write(insert("c"))  # type: ignore[arg-type]
        with pytest.raises(MigrationError, match="things is at migration 1, this program knows 2"):
            await Store(path, [NEW], read_only=True).__aenter__()
        await store.write(insert("d"))  # type: ignore[arg-type]
        assert await store.read(names) == ["a", "b", "d"]
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await Store(tmp_path / "none.db", [OLD], read_only=True).__aenter__()


async def test_a_read_sees_one_commit(tmp_path: Path) -> None:
    """Two queries of one read, with a write between them."""
    async with Store(tmp_path / "s.db", [OLD]) as store:
        await store.write(insert("a"))  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()

        def twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
            first = names(connection)
            asyncio.run_coroutine_threadsafe(store.write(insert("b")), loop).result(60)  # type: ignore[arg-type]
            return first, names(connection)

        assert await store.read(twice) == (["a"], ["a"])
        assert await store.read(names) == ["a", "b"]
