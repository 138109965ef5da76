"""The dead letters' bounds under a flood."""

from pathlib import Path

from conformance.journal.contract import entry, letter

from flexrelay.journal import LetterBounds, SqliteJournal


async def test_one_sender_cannot_take_the_room_of_others(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal.db", LetterBounds(total=50, per_sender=10)) as journal:
        for _ in range(10):
            await journal.append([], [letter(1, credential="noisy") for _ in range(10)])
        await journal.append([], [letter(2, credential="quiet")])
        await journal.append([], [letter(3, credential="noisy", reason="equivocation")])
        found = await journal.letters()
        assert len(found) == 12
        assert {item.credential for item in found} == {"noisy", "quiet"}
        assert any(item.reason == "equivocation" for item in found)
        assert (await journal.count()).dropped == 90


async def test_many_senders_displace_the_oldest_but_no_evidence(tmp_path: Path) -> None:
    bounds = LetterBounds(total=100, per_sender=10)
    async with SqliteJournal(tmp_path / "journal.db", bounds) as journal:
        await journal.append([], [letter(0, reason="equivocation")])
        for number in range(1, 301):
            await journal.append([], [letter(number)])
        count = await journal.count()
        assert count.kept <= 100 and count.kept + count.dropped == 301
        found = await journal.letters(limit=1000)
        assert found[0].reason == "equivocation"
        assert found[-1].received_at == 300
    async with SqliteJournal(tmp_path / "journal.db", bounds) as journal:  # counted again from disk
        await journal.append([], [letter(number) for number in range(400, 420)])
        assert (await journal.count()).kept <= 100


async def test_bytes_are_bounded(tmp_path: Path) -> None:
    bounds = LetterBounds(total_bytes=100_000, per_sender=1000, shares=1)
    async with SqliteJournal(tmp_path / "journal.db", bounds) as journal:
        for number in range(40):
            await journal.append([entry(number + 1)], [letter(number, size=10_000)])
        await journal.append([], [letter(99, size=200_000)])
        count = await journal.count()
        assert 50_000 < count.kept_bytes <= 100_000
        assert count.kept + count.dropped == 41
        assert journal.end == 40


async def test_one_sender_cannot_take_the_bytes_of_others(tmp_path: Path) -> None:
    bounds = LetterBounds(total_bytes=100_000, shares=4)
    async with SqliteJournal(tmp_path / "journal.db", bounds) as journal:
        await journal.append([], [letter(1, credential="quiet", size=1000)])
        for number in range(20):
            await journal.append([], [letter(number, credential="noisy", size=10_000)])
        await journal.append([], [letter(3, credential="noisy", reason="equivocation", size=20_000)])
        await journal.append([], [letter(4, credential="large", size=50_000), letter(5, credential="large", size=10)])
        found = [(item.credential, len(item.payload)) for item in await journal.letters()]
        assert found == [("quiet", 1000), ("noisy", 10_000), ("noisy", 10_000), ("noisy", 20_000), ("large", 50_000)]
        await journal.remove([2, 3])
    async with SqliteJournal(tmp_path / "journal.db", bounds) as journal:  # counted again from disk
        await journal.append([], [letter(6, credential="noisy", size=4_000), letter(7, credential="noisy", size=4_000)])
        assert [len(item.payload) for item in await journal.letters() if item.credential == "noisy"] == [20_000, 4_000]
        assert journal.dropped == 1
