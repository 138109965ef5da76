"""Segments that were read a moment ago: bounded, and never in the place of what stands in the file."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conformance.journal.contract import entry

from flexrelay.journal import JournalCorrupt, SqliteJournal
from flexrelay.journal.decoded import BYTES, ENTRIES, Decoded


def test_what_is_held_is_bounded_in_entries_and_bytes() -> None:
    held = Decoded()
    many = [entry(1)] * (ENTRIES // 2)
    for number in range(3):
        held.keep((number, number, b"h"), many, 10)
    assert [held.get((number, number, b"h")) is not None for number in range(3)] == [False, True, True]
    for number in (3, 4):
        held.keep((number, number, b"h"), [entry(1)], BYTES)
    assert [held.get((number, number, b"h")) is not None for number in range(5)] == [False] * 4 + [True]


async def test_a_segment_that_changes_after_it_was_read_is_not_given_from_memory(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal.db") as journal:
        await journal.append([entry(number) for number in range(1, 6)])
        first = await journal.read(0, 10)
        assert await journal.read(0, 10) == first == [entry(number, position=number) for number in range(1, 6)]
        assert await journal.read(2, 2) == first[2:4]
        for statement in ("UPDATE segment SET last = 6", "UPDATE segment SET last = 5, hash = zeroblob(32)"):
            with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as file:
                file.execute(statement)
            with pytest.raises(JournalCorrupt):
                await journal.read(0, 10)


async def test_what_was_truncated_is_not_given_from_memory(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal.db") as journal:
        for number in (1, 2, 3):
            await journal.append([entry(number)])
        assert len(await journal.read(0, 10)) == 3
        await journal.acknowledge("c", 3)
        assert await journal.truncate(2**62) == 2
        with pytest.raises(ValueError, match="truncated"):
            await journal.read(0, 10)
        assert await journal.entry(1) is None
        assert [item.position for item in await journal.read(2, 10)] == [3]


async def test_a_reader_that_changes_its_list_changes_nobody_elses(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal.db") as journal:
        await journal.append([entry(1), entry(2)])
        (await journal.read(0, 10)).clear()
        assert len(await journal.read(0, 10)) == 2
