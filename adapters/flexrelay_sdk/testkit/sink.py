"""A sink that records what an adapter gives it, and can be slow, hold, refuse or crash."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk.frame import Codec, DecodeError, DeviceProof, Frame, Outcome, Receipt, SinkUnavailable


class SinkCrash(RuntimeError):
    """What a crashing sink raises: nothing that an adapter may expect."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A frame that was taken and what its codec made of it."""

    frame: Frame
    measurements: tuple[Measurement, ...]
    proof: DeviceProof | None


class RecordingSink:
    """`Sink` that decodes every frame at once and keeps it in the order of its arrival.

    `hold` lets `put` wait until `release`; `refuse` and `crash` are how many of the next batches raise
    SinkUnavailable or SinkCrash; `delay_s` is how long each batch takes. A codec that raises anything but DecodeError,
    an empty batch and a put beside an unfinished one are noted in `faults`, which the contract demands to be empty.
    """

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.stored: list[Stored] = []
        self.dead: list[tuple[Frame, str]] = []
        """Dead letters with their reason."""
        self.batches: list[int] = []
        self.faults: list[str] = []
        self.delay_s = delay_s
        self.refuse = 0
        self.crash = 0
        self.refused = 0
        self.entered = 0
        """Batches that `put` was called with, however it ended."""
        self.waiting = 0
        """Frames inside `put` now."""
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        self.entered += 1
        if not frames:
            self.faults.append("an empty batch")
        self.waiting += len(frames)
        try:
            await self._open.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.crash:
                self.crash -= 1
                raise SinkCrash("told to crash")
            if self.refuse:
                self.refuse -= 1
                self.refused += 1
                raise SinkUnavailable("told to refuse")
            receipts = [self._take(frame, codec) for frame in frames]
        finally:
            self.waiting -= len(frames)
        self.batches.append(len(frames))
        return receipts

    def _take(self, frame: Frame, codec: Codec) -> Receipt:
        try:
            decoded = codec.decode(frame)
        except DecodeError as error:
            self.dead.append((frame, error.reason))
            return Receipt(Outcome.DEAD_LETTER, reason=error.reason)
        except Exception as error:
            self.faults.append(f"the codec raised {type(error).__name__}: {error}")
            return Receipt(Outcome.DEAD_LETTER, reason="codec_error")
        self.stored.append(Stored(frame, tuple(decoded.measurements), decoded.proof))
        return Receipt(Outcome.STORED, position=len(self.stored))

    @property
    def frames(self) -> list[Frame]:
        return [stored.frame for stored in self.stored]

    @property
    def measurements(self) -> list[Measurement]:
        return [measurement for stored in self.stored for measurement in stored.measurements]

    def values(self, register: str = "power_w") -> list[int]:
        """A register of every measurement that has it, in the order of arrival."""
        return [m.registers[register] for m in self.measurements if register in m.registers]


async def until(condition: Callable[[], bool], timeout_s: float = 60.0, what: str = "the condition") -> None:
    """Wait for `condition`; fail with `what` when it does not come."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  # the condition is of another task's state
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come within {timeout_s:g} s") from None
