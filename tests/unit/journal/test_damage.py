"""A damaged, foreign or newer file is named for what it is; no changed byte of an entry goes unnoticed."""

import random
import sqlite3
from pathlib import Path

import pytest
from conformance.journal.contract import entry, letter

from flexrelay.journal import JournalCorrupt, JournalUnavailable, SqliteJournal
from flexrelay.journal.segment import decode_segment, encode_segment
from flexrelay.store import MigrationError, StoreUnavailable


async def filled(path: Path, count: int = 50) -> None:
    """A closed journal file."""
    async with SqliteJournal(path) as journal:
        for number in range(1, count + 1):
            await journal.append([entry(number)], [letter(number)] if number % 10 == 0 else [])


async def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"these are not the bytes of a journal")
    with pytest.raises(JournalCorrupt, match=r"journal\.db is damaged: it does not begin as a SQLite file.*restore"):
        SqliteJournal(path)


@pytest.mark.parametrize("rest", [50, 100, 4096, 5000, 0.5, 0.9])
async def test_a_truncated_file_is_refused(tmp_path: Path, rest: float) -> None:
    path = tmp_path / "journal.db"
    await filled(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(rest) if rest >= 1 else int(len(data) * rest)])
    with pytest.raises(JournalCorrupt, match="damaged"):
        SqliteJournal(path)


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_version VALUES ('journal', 2, 'of a later release')")
    connection.commit()
    connection.close()
    with pytest.raises(MigrationError, match="journal is at migration 2"):
        SqliteJournal(path)


async def test_one_process_owns_the_file(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal.db"):
        with pytest.raises(JournalUnavailable, match="in use"):
            SqliteJournal(tmp_path / "journal.db")
    async with SqliteJournal(tmp_path / "journal.db"):
        pass


async def test_another_process_reads_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await filled(path, 10)
    async with SqliteJournal(path) as journal:
        await journal.append([entry(11)])
        async with SqliteJournal(path, read_only=True) as beside:
            assert beside.end == 11 and [each.position for each in await beside.read(0, 100)] == [*range(1, 12)]
            assert await beside.letters() == await journal.letters() and (await beside.count()).kept == 1
            with pytest.raises(JournalUnavailable, match="readonly"):
                await beside.append([entry(12)])
        await journal.append([entry(12)])
        assert journal.end == 12
    with pytest.raises(StoreUnavailable, match="does not exist"):
        SqliteJournal(tmp_path / "none.db", read_only=True)
    assert not (tmp_path / "none.db").exists()


async def test_any_flipped_byte_of_a_segment_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await filled(path, 5)
    connection = sqlite3.connect(path)
    (body,) = connection.execute("SELECT body FROM segment WHERE first = 3").fetchone()
    chance = random.Random(7)
    places = sorted(chance.sample(range(len(body)), 40))
    for place in places:
        changed = bytes([*body[:place], body[place] ^ (1 << chance.randrange(8)), *body[place + 1 :]])
        connection.execute("UPDATE segment SET body = ? WHERE first = 3", (changed,))
        connection.commit()
        async with SqliteJournal(path) as journal:
            with pytest.raises(JournalCorrupt, match="segment 3–3"):
                await journal.read(0, 10)
            with pytest.raises(JournalCorrupt, match="segment 3–3"):
                await journal.verify()
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM segment WHERE first = 3",
        "UPDATE segment SET hash = zeroblob(32) WHERE first = 3",
        "UPDATE segment SET previous = zeroblob(32) WHERE first = 3",
        "UPDATE segment SET newest_at = 9 WHERE first = 3",
        "UPDATE segment SET last = 4 WHERE first = 3",
    ],
)
async def test_a_missing_or_changed_segment_is_noticed(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "journal.db"
    await filled(path, 5)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    async with SqliteJournal(path) as journal:
        with pytest.raises(JournalCorrupt):
            await journal.verify()


async def test_flipped_bytes_anywhere_in_the_file_never_give_other_entries(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await filled(path)
    data = path.read_bytes()
    expected = [entry(number, position=number) for number in range(1, 51)]
    chance = random.Random(11)
    noticed = 0
    for _ in range(60):
        place = chance.randrange(len(data))
        path.write_bytes(bytes([*data[:place], data[place] ^ (1 << chance.randrange(8)), *data[place + 1 :]]))
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        try:
            async with SqliteJournal(path) as journal:
                found = await journal.read(0, 100) if journal.begin == 1 else []
                assert found == expected or journal.end != 50
                if found != expected:
                    noticed += 1
        except (JournalCorrupt, JournalUnavailable, MigrationError, sqlite3.Error, ValueError):
            noticed += 1
    assert noticed > 5


def test_cut_segments_are_no_segments() -> None:
    body = encode_segment([entry(1), entry(2)])
    assert decode_segment(body, 1, 2, skip=1) == [entry(2, position=2)]
    for end in range(len(body)):
        with pytest.raises(ValueError):
            decode_segment(body[:end], 1, 2)
    with pytest.raises(ValueError, match="too many"):
        decode_segment(body + b"x", 1, 2)
