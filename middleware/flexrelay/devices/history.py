"""Reading what the other side of an adapter has kept into the journal, and telling what became of it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from flexrelay.journal.port import Journal
from flexrelay_sdk import Backfiller, Codec, Frame, Outcome, Receipt, Sink


class Stretch(NamedTuple):
    """What was observed in [from_ms, until_ms) (market time, UTC ms) by the devices with these credentials."""

    from_ms: int
    until_ms: int
    credentials: tuple[str, ...] = ()
    """All of the adapter's when empty."""


class Filled(NamedTuple):
    """`readings` came and could be decoded and judged; of them `stored` are new, `duplicates` stood in the journal.
    `refused`: frames that became dead letters, by reason."""

    readings: int
    stored: int
    duplicates: int
    refused: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


class HistoryRefused(Exception):
    """The adapter reads no history; the text says why."""


async def fill(adapter: Backfiller, sink: Sink, journal: Journal, stretch: Stretch) -> Filled:
    """Through the ingest path as any reading, so that what is known is recognised.

    Raises HistoryRefused, ConnectionError and SinkUnavailable; what came before stays.
    """
    counting = _Counting(sink, journal)
    try:
        await adapter.backfill(counting, stretch.from_ms, stretch.until_ms, stretch.credentials)
    except ValueError as error:
        raise HistoryRefused(str(error)) from error
    return Filled(counting.readings, counting.stored, counting.readings - counting.stored, dict(counting.refused))


class _Counting:
    """A sink before the gateway's: it counts readings, which a frame of history holds many of."""

    def __init__(self, sink: Sink, journal: Journal) -> None:
        self.readings = 0
        self.stored = 0
        self.refused: Counter[str] = Counter()
        self._sink = sink
        self._journal = journal

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        receipts = await self._sink.put(frames, codec)
        for frame, receipt in zip(frames, receipts, strict=True):
            if receipt.outcome is Outcome.DEAD_LETTER:
                self.refused[receipt.reason] += 1
                continue
            self.readings += len(codec.decode(frame).measurements)
            entry = await self._journal.entry(receipt.position) if receipt.outcome is Outcome.STORED else None
            self.stored += 0 if entry is None else len(entry.measurements)
        return receipts
