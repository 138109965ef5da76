"""Frames of all connections into one sink, a batch after the other. Whoever brings a frame waits until it is on disk,
so no device has more than one frame here, and no device is asked while the gateway cannot store."""

import asyncio
import logging
from collections.abc import Sequence

from flexrelay_sdk import Codec, Frame, Sink, SinkUnavailable

log = logging.getLogger(__name__)


class Intake:
    """`run` feeds the sink until cancelled; `put` returns when the frame is on disk."""

    def __init__(self, name: str, codec: Codec, backoff_min_s: float, backoff_max_s: float) -> None:
        self._name = name
        self._codec = codec
        self._backoff_s = (backoff_min_s, backoff_max_s)
        self._waiting: list[Frame] = []
        self._there = asyncio.Event()
        self._stored: asyncio.Future[None] | None = None
        self.refusals = 0

    async def put(self, frame: Frame) -> None:
        if self._stored is None:
            self._stored = asyncio.get_running_loop().create_future()
        self._waiting.append(frame)
        self._there.set()
        await asyncio.shield(self._stored)

    async def run(self, sink: Sink) -> None:
        """What the sink raises besides SinkUnavailable ends it."""
        while True:
            await self._there.wait()
            self._there.clear()
            frames, stored = self._waiting, self._stored
            self._waiting, self._stored = [], None
            try:
                await self._store(sink, frames)
            finally:
                if stored is not None and not stored.done():
                    stored.set_result(None)

    async def _store(self, sink: Sink, frames: Sequence[Frame]) -> None:
        least, most = self._backoff_s
        failures = 0
        while True:
            try:
                await sink.put(frames, self._codec)
                return
            except SinkUnavailable as error:
                self.refusals += 1
                if not failures:
                    log.warning("%s: the gateway cannot store (%s); no device is asked until it can", self._name, error)
                await asyncio.sleep(min(most, least * 2 ** min(failures, 20)))
                failures += 1
