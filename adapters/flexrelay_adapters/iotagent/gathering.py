"""Frames of many HTTP requests, given to the sink together: what waits while one batch commits is the next one."""

import asyncio
from typing import Final

from flexrelay_sdk import Codec, Frame, Receipt, Sink, SinkUnavailable

BATCH: Final = 2000


class Gathering:
    """At most `most` frames wait; beyond them `put` refuses."""

    def __init__(self, codec: Codec, most: int) -> None:
        self._codec = codec
        self._most = most
        self._waiting: list[tuple[Frame, asyncio.Future[Receipt]]] = []
        self._some = asyncio.Event()

    async def put(self, frame: Frame) -> Receipt:
        """Return when it is on disk. Raises SinkUnavailable."""
        if len(self._waiting) >= self._most:
            raise SinkUnavailable("too many requests wait")
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((frame, done))
        self._some.set()
        return await done

    async def run(self, sink: Sink) -> None:
        """Until cancelled, or until the sink raises what is not SinkUnavailable."""
        batch: list[tuple[Frame, asyncio.Future[Receipt]]] = []
        try:
            while True:
                await self._some.wait()
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                if not self._waiting:
                    self._some.clear()
                try:
                    receipts = await sink.put([frame for frame, _ in batch], self._codec)
                except SinkUnavailable as error:
                    _refuse(batch, error)
                    continue
                for (_, done), receipt in zip(batch, receipts, strict=True):
                    if not done.done():
                        done.set_result(receipt)
        finally:
            _refuse([*batch, *self._waiting], SinkUnavailable("the adapter ends"))
            self._waiting = []
            self._some.clear()


def _refuse(batch: list[tuple[Frame, asyncio.Future[Receipt]]], error: SinkUnavailable) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
