"""A process that appends for ever and says each position on stdout once its append has returned; to be killed."""

import asyncio
import random
import resource
import sys
from pathlib import Path

from flexrelay.journal import Entry, JournalUnavailable, SqliteJournal


def _entry(text: str) -> Entry:
    return Entry(0, 0, "did:flexrelay:test:zQm", "mqtt", "c", "t", 1, False, text.encode() * 20, ())


async def append_forever(path: Path, run: str) -> None:
    async with SqliteJournal(path) as journal:

        async def one(worker: int) -> None:
            number = 0
            while True:
                count = random.randint(1, 20)
                batch = [_entry(f"{run}.{worker}.{number + index};") for index in range(count)]
                first = await journal.append(batch)
                for index in range(count):
                    print(f"{first + index} {run}.{worker}.{number + index}", flush=True)
                number += count

        await asyncio.gather(*[one(worker) for worker in range(5)])


async def fill_a_small_disk(path: Path) -> None:
    """A limit of the file size stands for a full disk: refused clearly, again and again, then it recovers."""
    async with SqliteJournal(path) as journal:
        await journal.append([_entry("before")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        stored, refused = 1, 0
        while refused < 3:
            try:
                await journal.append([_entry("x" * 1000)])
                stored += 1
            except JournalUnavailable as error:
                refused += 1
                message = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        first = await journal.append([_entry("after")])
        assert first == stored + 1 == journal.end, (first, stored, journal.end)
        assert await journal.verify() == first
        print(f"{stored} {message}")


if __name__ == "__main__":
    if sys.argv[2] == "full":
        asyncio.run(fill_a_small_disk(Path(sys.argv[1])))
    else:
        asyncio.run(append_forever(Path(sys.argv[1]), sys.argv[2]))
