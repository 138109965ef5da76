"""From messages to the sink: what waits is given in batches, and an answer goes out when its frame is on disk.

When full: `offer` refuses, the message is not answered, and a confirmable one comes again by itself (RFC 7252 §4.2).
While the sink cannot store, nothing is answered either.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from flexrelay_adapters.lwm2m.coap.layer import Exchange
from flexrelay_sdk import Codec, Frame, Receipt, Sink, SinkUnavailable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class IntakeStats:
    """Counters since the adapter was made."""

    frames: int = 0
    batches: int = 0
    acknowledged: int = 0
    full: int = 0
    """Messages that were not taken because too many were waiting."""
    sink_refusals: int = 0


class Waiting(NamedTuple):
    """A frame on its way; `exchange` is None where nobody waits for an answer."""

    exchange: Exchange | None
    frame: Frame


class Intake:
    """See the module's text. `done` is called for each frame that is on disk, `failed` for each that is not."""

    def __init__(
        self,
        codec: Codec,
        *,
        batch: int,
        most: int,
        most_bytes: int,
        backoff_s: float,
        done: Callable[[Exchange, Frame, Receipt], None],
        failed: Callable[[Exchange], None],
    ) -> None:
        self._codec = codec
        self._batch = batch
        self._most = most
        self._most_bytes = most_bytes
        self._backoff_s = backoff_s
        self._done = done
        self._failed = failed
        self._waiting: list[Waiting] = []
        self._bytes = 0
        self._under_way = 0
        self._ready = asyncio.Event()
        self.stats: Final = IntakeStats()

    @property
    def waiting(self) -> tuple[int, int]:
        """(frames, bytes) that wait or are at the sink."""
        return len(self._waiting) + self._under_way, self._bytes

    def offer(self, exchange: Exchange | None, frame: Frame) -> bool:
        """Whether the frame was taken."""
        size = len(frame.payload)
        count = len(self._waiting)
        if count + self._under_way >= self._most or self._bytes + size > self._most_bytes:
            self.stats.full += 1
            return False
        self._waiting.append(Waiting(exchange, frame))
        self._bytes += size
        if not count:
            self._ready.set()
        return True

    async def run(self, sink: Sink) -> None:
        """Until cancelled. What else than SinkUnavailable the sink raises ends it."""
        stats = self.stats
        while True:
            if not self._waiting:
                self._ready.clear()
                await self._ready.wait()
            taken, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            self._under_way = len(taken)
            frames = [frame for _, frame in taken]
            try:
                receipts = await sink.put(frames, self._codec)
            except SinkUnavailable as error:
                stats.sink_refusals += 1
                log.warning("the gateway cannot store (%s); nothing is acknowledged", error)
                self._settle(taken)
                for exchange, _ in taken:
                    if exchange is not None:
                        self._failed(exchange)
                await asyncio.sleep(self._backoff_s)
                continue
            except BaseException:
                self._settle(taken)
                raise
            self._settle(taken)
            stats.frames += len(taken)
            stats.batches += 1
            for (exchange, frame), receipt in zip(taken, receipts, strict=True):
                if exchange is not None:
                    self._done(exchange, frame, receipt)
                    stats.acknowledged += 1

    def _settle(self, taken: list[Waiting]) -> None:
        self._under_way = 0
        self._bytes -= sum([len(frame.payload) for _, frame in taken])
