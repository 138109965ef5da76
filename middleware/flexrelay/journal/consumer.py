"""Following the journal: read, let the consumer store effects and position in one transaction, go on."""

import time
from collections.abc import Sequence
from typing import Final, Protocol

from flexrelay.journal.port import Entry, Journal, JournalCorrupt

BATCH: Final = 4_000
ACKNOWLEDGE_S: Final = 5.0
"""An acknowledgement only frees space; one every few seconds is enough."""


class Consumer(Protocol):
    """`consume` must be all or nothing and include the new position; entries may come again after a failure."""

    name: str

    @property
    def position(self) -> int:
        """The position up to which the effects are stored."""
        ...

    async def consume(self, entries: Sequence[Entry]) -> None: ...


async def catch_up(journal: Journal, consumer: Consumer) -> int:
    """Consume what is there now; the number of entries."""
    count = 0
    while consumer.position < journal.end:
        entries = await journal.read(consumer.position, BATCH)
        await consumer.consume(entries)
        count += len(entries)
    return count


async def follow(journal: Journal, consumer: Consumer) -> None:
    """Consume until cancelled. What the consumer or the journal raises ends it: the owner decides about a restart.

    Raises JournalCorrupt when the consumer is ahead of the journal: it would pass over what comes next.
    """
    if consumer.position > journal.end:
        raise JournalCorrupt(
            f"{consumer.name} has taken entries up to {consumer.position}, the journal ends at {journal.end}: it is an "
            "older copy. Restore journal and store from the same backup"
        )
    await journal.acknowledge(consumer.name, consumer.position)  # from now on nothing it needs is truncated
    acknowledged = time.monotonic()
    while True:
        await journal.wait(consumer.position)
        await consumer.consume(await journal.read(consumer.position, BATCH))
        if time.monotonic() - acknowledged >= ACKNOWLEDGE_S:
            await journal.acknowledge(consumer.name, consumer.position)
            acknowledged = time.monotonic()
