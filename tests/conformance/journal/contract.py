"""What every journal promises. A journal's own test module subclasses `JournalContract` and says how to open one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from flexrelay.journal import DeadLetter, Entry, JournalCorrupt, JournalUnavailable
from flexrelay.journal.consumer import follow
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance

DID = "did:flexrelay:test:zQmContract"


def entry(number: int, received_at: int = 0, **changes: Any) -> Entry:
    """An entry that names `number` in all its parts."""
    measurement = Measurement(
        DID, number, {"import_j": number, "power_w": -number}, number, Provenance.METER_SIGNED, Notice.GAP
    )
    values: dict[str, Any] = {
        "position": 0,
        "partition": number % 256,
        "did": DID,
        "protocol": "mqtt",
        "credential": f"zQm{number}",
        "channel": f"a/ü/{number}",
        "received_at": received_at or number,
        "signed": number % 2 == 0,
        "payload": b"\x00\xff payload %d" % number,
        "measurements": (measurement,),
    }
    return Entry(**{**values, **changes})


def letter(number: int, *, reason: str = "malformed", credential: str = "", size: int = 10) -> DeadLetter:
    return DeadLetter(
        0, reason, "why", "field", DID, "mqtt", credential or f"sender{number}", "topic", number, bytes(size)
    )


class JournalContract:
    """Subclass it; `open` gives a journal over the same place each time it is called with the same folder."""

    def open(self, folder: Path) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError

    @pytest.fixture
    async def journal(self, tmp_path: Path) -> AsyncIterator[Any]:
        async with self.open(tmp_path) as journal:
            yield journal

    async def test_positions_count_from_one_without_holes(self, journal: Any) -> None:
        assert (journal.end, journal.begin) == (0, 1)
        assert await journal.append([entry(1), entry(2)]) == 1
        assert await journal.append([entry(3)]) == 3
        assert (journal.end, journal.begin) == (3, 1)
        assert [found.position for found in await journal.read(0, 10)] == [1, 2, 3]

    async def test_what_was_appended_is_read_back_whole(self, journal: Any) -> None:
        await journal.append([entry(1), entry(2), entry(3, measurements=())])
        found = await journal.read(0, 10)
        assert found == [entry(1, position=1), entry(2, position=2), entry(3, position=3, measurements=())]
        assert found[1].evidence == found[1].payload
        assert found[0].evidence is None

    async def test_a_read_begins_after_its_position_and_ends_at_its_limit(self, journal: Any) -> None:
        for start in range(1, 30, 7):
            await journal.append([entry(number) for number in range(start, start + 7)])
        for after in (0, 1, 6, 7, 8, 33):
            for limit in (1, 7, 20):
                found = await journal.read(after, limit)
                expected = list(range(after + 1, min(after + limit, 35) + 1))
                assert [item.position for item in found] == expected
                assert [item.received_at for item in found] == expected
        assert await journal.read(35, 5) == []
        assert await journal.read(99, 5) == []
        assert (await journal.entry(9)).received_at == 9
        assert await journal.entry(36) is None and await journal.entry(0) is None

    async def test_it_is_all_there_after_opening_again(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as journal:
            await journal.append([entry(number) for number in range(1, 6)], [letter(1)])
            await journal.acknowledge("twin", 3)
        async with self.open(tmp_path) as journal:
            assert [found.received_at for found in await journal.read(0, 10)] == [1, 2, 3, 4, 5]
            assert await journal.append([entry(6)]) == 6
            await journal.truncate(10**15)
            assert journal.begin <= 4  # the acknowledgement is remembered too
            assert (await journal.letters())[0].payload == bytes(10)

    async def test_appends_at_once_do_not_mix(self, journal: Any) -> None:
        batches = [[entry(100 * batch + index) for index in range(5)] for batch in range(1, 20)]
        firsts = await asyncio.gather(*[journal.append(batch) for batch in batches])
        assert sorted(firsts) == list(range(1, 95, 5))
        for first, batch in zip(firsts, batches, strict=True):
            found = await journal.read(first - 1, 5)
            assert [item.payload for item in found] == [item.payload for item in batch]

    async def test_letters_stand_in_the_same_commit(self, journal: Any) -> None:
        assert await journal.append([], [letter(1), letter(2)]) == 1
        assert journal.end == 0
        await journal.append([entry(1)], [letter(3)])
        found = await journal.letters()
        assert [item.received_at for item in found] == [1, 2, 3]
        assert await journal.letter(found[1].letter_id) == found[1]
        assert await journal.remove([found[0].letter_id, 10**6]) == 1
        assert [item.received_at for item in await journal.letters(after=found[1].letter_id)] == [3]
        assert (await journal.count()).kept == 2

    async def test_truncation_stops_at_the_slowest_consumer_and_at_retention(self, journal: Any) -> None:
        for number in range(1, 11):
            await journal.append([entry(number)])
        assert await journal.truncate(10**15) == 0  # no consumer was ever here
        await journal.acknowledge("twin", 8)
        await journal.acknowledge("windows", 5)
        assert await journal.truncate(4) == 3
        assert await journal.truncate(10**15) == 2
        assert (journal.begin, journal.end) == (6, 10)
        await journal.acknowledge("windows", 3)  # a late word does not bring anything back
        await journal.acknowledge("windows", 10)
        await journal.acknowledge("twin", 10)
        await journal.truncate(10**15)
        assert await journal.append([entry(11)]) == 11
        assert [item.position for item in await journal.read(10, 5)] == [11]
        with pytest.raises(ValueError, match="truncated"):
            await journal.read(0, 5)
        assert await journal.entry(1) is None

    async def test_a_consumer_ahead_of_the_journal_is_an_error(self, journal: Any) -> None:
        class Ahead:
            name = "twin"
            position = 5

            async def consume(self, entries: Sequence[Entry]) -> None:
                raise AssertionError("nothing may be consumed")

        await journal.append([entry(1)])
        async with asyncio.timeout(60):
            with pytest.raises(JournalCorrupt, match="twin has taken entries up to 5, the journal ends at 1"):
                await follow(journal, Ahead())

    async def test_reading_while_it_is_truncated_is_never_damage(self, journal: Any) -> None:
        for number in range(1, 201):
            await journal.append([entry(number)])
        await journal.acknowledge("one", 200)

        async def read() -> None:
            for number in [*range(1, 201)] * 3:
                found = await journal.entry(number)
                assert found is None or found.position == number

        async def truncate() -> None:
            for number in range(0, 201, 2):
                await journal.truncate(number)

        await asyncio.gather(read(), truncate(), read())

    async def test_a_reader_is_woken_by_the_next_entry(self, journal: Any) -> None:
        await journal.append([entry(1)])
        await asyncio.wait_for(journal.wait(0), 60)
        waiting = asyncio.create_task(journal.wait(1))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await journal.append([entry(2)])
        await asyncio.wait_for(waiting, 60)

    async def test_a_cancelled_append_harms_no_other(self, journal: Any) -> None:
        tasks = [asyncio.create_task(journal.append([entry(number)])) for number in range(1, 6)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await journal.append([entry(9)])
        found = await journal.read(0, 10)
        assert [item.position for item in found] == list(range(1, len(found) + 1))
        assert {1, 2, 4, 5, 9} <= {item.received_at for item in found}

    async def test_closed_is_closed(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as journal:
            await journal.append([entry(1)])
        for call in (journal.append([entry(2)]), journal.read(0, 1), journal.acknowledge("a", 1), journal.letters()):
            with pytest.raises(JournalUnavailable):
                await call
