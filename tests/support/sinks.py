"""Sinks for adapter tests: they keep what they were given, can wait, and can refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from flexrelay_sdk import Codec, DecodeError, Frame, Outcome, Receipt, SinkUnavailable


class MemorySink:
    """Keeps frames in the order of their arrival; decodes each so that dead letters have their reason."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.batches: list[int] = []
        self.dead: list[tuple[Frame, str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refuse = 0
        """How many of the next batches are refused."""
        self.delay_s = 0.0

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        if self.refuse:
            self.refuse -= 1
            raise SinkUnavailable("told to refuse")
        await self.open.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        receipts = []
        for frame in frames:
            try:
                codec.decode(frame)
            except DecodeError as error:
                self.dead.append((frame, error.reason))
                receipts.append(Receipt(Outcome.DEAD_LETTER, reason=error.reason))
            else:
                self.frames.append(frame)
                receipts.append(Receipt(Outcome.STORED, position=len(self.frames)))
        self.batches.append(len(frames))
        return receipts

    def payloads(self) -> list[bytes]:
        return [frame.payload for frame in self.frames]


async def until(condition: Callable[[], bool], timeout_s: float = 60.0, what: str = "the condition") -> None:
    """Wait for `condition`; fail with `what` when it does not come."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  # the condition is of another task's state
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come within {timeout_s} s") from None
