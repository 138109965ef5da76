"""The sink of all adapters: frames in, receipts out, and in between one durable commit for many frames.

What waits is taken in batches: identify → decode → check the signature → validate → judge against the neighbours →
journal, the refused ones as dead letters in the same commit. Judging a batch and handing it to the journal is one
step of the event loop, so a revocation lies wholly before or wholly after it.

When full: `put` waits until there is room again (frames or bytes); it never drops. When the
journal cannot store, every `put` that waits is refused with SinkUnavailable, and the next one tries again.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from flexrelay.ingest.registers import HistoryUnavailable, Inconsistent, RegisterChecks
from flexrelay.ingest.registry import Device, Registry
from flexrelay.journal.port import DeadLetter, Entry, Journal, JournalUnavailable
from flexrelay.journal.registers import InvalidRegisters, pack_registers
from flexrelay.journal.segment import MAX_MEASUREMENTS, encode_measurement
from flexrelay_schemas.keys import verify
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_schemas.reading import FUTURE_TOLERANCE_MS
from flexrelay_sdk import Codec, Decoded, DecodeError, DeviceProof, Frame, Outcome, Receipt, SinkUnavailable

_LOG = logging.getLogger(__name__)
_DUPLICATE: Final = Receipt(Outcome.DUPLICATE)
_NOTICES: Final = tuple(Notice(bits) for bits in range(32))
_LATE: Final = int(Notice.LATE)
_MAX_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the path. `queue_*` bound what waits in `put`; a batch ends after `batch_frames`, `batch_bytes` (one
    frame goes over it) or `batch_ms`.

    Readings of more than `future_ms` ahead of or `stale_ms` behind the market clock are refused.
    """

    frame_bytes: int = 65_536
    queue_frames: int = 20_000
    queue_bytes: int = 64 * 1024 * 1024
    batch_frames: int = 4_000
    batch_bytes: int = 32 * 1024 * 1024
    batch_ms: int = 50
    future_ms: int = FUTURE_TOLERANCE_MS
    stale_ms: int = 30 * 86_400_000


class Refusal(Exception):
    """The frame becomes a dead letter."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


class _Job:
    """One `put`: its frames, how many of them are done, and who waits."""

    __slots__ = ("codec", "done", "frames", "future", "receipts", "size")

    def __init__(self, frames: Sequence[Frame], codec: Codec, size: int) -> None:
        self.frames = frames
        self.codec = codec
        self.size = size
        self.done = 0
        self.receipts: list[Receipt] = []
        self.future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()


class _Batch:
    __slots__ = ("entries", "letters", "parts", "receipts")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.letters: list[DeadLetter] = []
        self.receipts: list[Receipt | int] = []
        """A receipt, or the index of the entry whose position it will name."""
        self.parts: list[tuple[_Job, int]] = []
        """Jobs with the number of their frames in this batch, in order."""


class _Times(NamedTuple):
    """What a batch's instants are held against (market time, UTC ms)."""

    earliest: int
    latest: int
    due_until: int


def _never(_: int) -> int:
    """No window is due."""
    return -1


class Ingest:
    """See `flexrelay_sdk.Sink`. For one event loop; `close` when the adapters have stopped."""

    def __init__(
        self,
        registry: Registry,
        journal: Journal,
        checks: RegisterChecks,
        market_now: Callable[[], int],
        limits: Limits | None = None,
        due_until: Callable[[int], int] | None = None,
    ) -> None:
        """`market_now` gives the market clock's instant in UTC ms. `due_until` gives, for an instant of that clock,
        the end of the last market interval whose window is due then: a reading of this or an earlier instant is late.
        Without it none is."""
        self.registry = registry
        self.limits = limits or Limits()
        self.outcomes: Counter[str] = Counter()
        """Frames by outcome, dead letters by "dead_letter:" and their reason; for metrics."""
        self.trouble = ""
        """Why the last batch could not be kept; empty after one that was."""
        self._journal = journal
        self._checks = checks
        self._market_now = market_now
        self._due_until = due_until or _never
        self._jobs: deque[_Job] = deque()
        self._frames = 0
        self._bytes = 0
        self._room = asyncio.Condition()
        self._turnstile = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> tuple[int, int]:
        """(frames, bytes) that are in the queue or under way."""
        return self._frames, self._bytes

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        if not frames:
            return []
        size = sum([len(frame.payload) for frame in frames])
        if self._turnstile.locked() or self._full(len(frames), size):
            async with self._turnstile:  # in the order of arrival, or small ones would pass a large one for ever
                async with self._room:
                    await self._room.wait_for(lambda: self._closed or not self._full(len(frames), size))
                job = self._enter(frames, codec, size)
        else:
            job = self._enter(frames, codec, size)
        return await asyncio.shield(job.future)

    def _enter(self, frames: Sequence[Frame], codec: Codec, size: int) -> _Job:
        if self._closed:
            raise SinkUnavailable("the gateway is shutting down")
        job = _Job(frames, codec, size)
        self._jobs.append(job)
        self._frames += len(frames)
        self._bytes += size
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="ingest")
        return job

    async def close(self) -> None:
        """Take nothing more, finish what is in the queue."""
        self._closed = True
        async with self._room:
            self._room.notify_all()
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def _full(self, frames: int, size: int) -> bool:
        """Something larger than the whole queue is let in when it is empty; otherwise it would wait for ever."""
        limits = self.limits
        return self._frames > 0 and (
            self._frames + frames > limits.queue_frames or self._bytes + size > limits.queue_bytes
        )

    async def _work(self) -> None:
        try:
            while self._jobs:
                await self._turn()
        finally:
            self._worker = None

    async def _turn(self) -> None:
        """One batch: judged and handed to the journal without letting anything else run in between."""
        try:
            batch = self._judge_waiting()
            first = await self._journal.append(batch.entries, batch.letters)
        except JournalUnavailable as error:
            self._checks.roll_back()
            self.trouble = str(error)
            _LOG.error("nothing can be stored: %s", error)
            await self._refuse_all(SinkUnavailable(str(error)))
        except Exception as error:  # damage, or a fault of our own: nothing of it may be acknowledged
            self._checks.roll_back()
            self.trouble = f"the gateway failed: {error}"
            _LOG.exception("ingest failed")
            await self._refuse_all(SinkUnavailable(f"the gateway failed: {error}"))
        else:
            self.trouble = ""
            self._checks.commit(self._journal.end)
            await self._answer(batch, first)

    def _judge_waiting(self) -> _Batch:
        batch = _Batch()
        limits = self.limits
        until = time.monotonic() + limits.batch_ms / 1000
        now = self._market_now()
        times = _Times(now - limits.stale_ms, now + limits.future_ms, self._due_until(now))
        room, bytes_left = limits.batch_frames, limits.batch_bytes
        for job in self._jobs:
            start = job.done
            frames = job.frames[start : start + room] if start or len(job.frames) > room else job.frames
            count = 0
            for frame in frames:
                self._judge(frame, job.codec, batch, times)
                count += 1
                bytes_left -= len(frame.payload)
                if bytes_left <= 0 or (not count & 31 and time.monotonic() > until):
                    break
            batch.parts.append((job, count))
            room -= count
            if room <= 0 or bytes_left <= 0 or time.monotonic() > until:
                break
        return batch

    def _judge(self, frame: Frame, codec: Codec, batch: _Batch, times: _Times) -> None:
        device = self.registry.identify(frame.protocol, frame.credential)
        try:
            if device is None:
                if not frame.credential:
                    where = frame.channel[:80]
                    raise Refusal("no_identity", f"what came in on {where!r} names no sender", "channel")
                raise Refusal("unknown_device", f"no device is bound to {frame.protocol} {frame.credential[:80]!r}")
            if device.refusal is not None:
                raise Refusal(*device.refusal)
            if len(frame.payload) > self.limits.frame_bytes:
                raise Refusal("too_large", f"{len(frame.payload)} bytes; at most {self.limits.frame_bytes} are taken")
            decoded = codec.decode(frame)
            signed = _check_identity(device, decoded)
            measurements, block = self._validate(device, decoded, times)
        except (Refusal, DecodeError) as error:
            self._dead(batch, frame, device, error.reason, error.message, error.field)
            return
        except (Inconsistent, InvalidRegisters) as wrong:
            self._dead(batch, frame, device, wrong.reason, str(wrong), wrong.field)
            return
        except HistoryUnavailable:
            raise  # not the frame's fault: the whole batch comes again
        except Exception as fault:  # a codec that breaks its promise must not stop the other devices
            _LOG.exception("codec %s failed on a frame of %s", type(codec).__name__, frame.credential[:80])
            self._dead(batch, frame, device, "codec_error", f"{type(fault).__name__}: {fault}", "")
            return
        if not measurements:
            batch.receipts.append(_DUPLICATE)
            return
        channel = frame.channel
        batch.receipts.append(len(batch.entries))
        batch.entries.append(
            Entry(
                0,
                device.partition,
                device.did,
                frame.protocol,
                frame.credential,
                channel if channel.isascii() and len(channel) <= _MAX_TEXT else _storable(channel),
                frame.received_at,
                signed,
                frame.payload,
                measurements,
                block,
            )
        )

    def _validate(self, device: Device, decoded: Decoded, times: _Times) -> tuple[tuple[Measurement, ...], bytes]:
        """The new measurements with their quality, and their bytes. Raises Refusal, Inconsistent, InvalidRegisters."""
        rank = Provenance.GATEWAY_ATTESTED if decoded.proof is None else Provenance.METER_SIGNED
        if len(decoded.measurements) == 1:  # nearly always
            found = self._validate_one(device, decoded.measurements[0], rank, times)
            return ((), b"") if found is None else ((found[0],), found[1])
        mark = self._checks.mark()
        taken: list[tuple[Measurement, bytes]] = []
        try:
            for measurement in decoded.measurements:
                found = self._validate_one(device, measurement, rank, times)
                if found is not None:
                    taken.append(found)
        except BaseException:
            self._checks.roll_back(mark)
            raise
        return tuple([item[0] for item in taken]), b"".join([item[1] for item in taken])

    def _validate_one(
        self, device: Device, measurement: Measurement, rank: Provenance, times: _Times
    ) -> tuple[Measurement, bytes] | None:
        """The measurement with its quality and its bytes; None for a duplicate. What raises has counted nothing in."""
        observed_at, seq = measurement.observed_at, measurement.seq
        earliest, latest, due_until = times
        if type(observed_at) is not int or not earliest <= observed_at <= latest:
            raise _wrong_time(observed_at, earliest, latest)
        if seq is not None and (type(seq) is not int or not 0 <= seq < 1 << 53):
            raise Refusal("invalid_value", "seq must be an integer from 0 to 2^53 - 1", "seq")
        packed = pack_registers(measurement.registers)
        judged = self._checks.admit(device.did, observed_at, -1 if seq is None else seq, packed)
        if judged.duplicate:
            return None
        noticed = judged.notice | _LATE if observed_at <= due_until else judged.notice
        if noticed or measurement.provenance is not rank:
            notice = measurement.notice | _NOTICES[noticed]
            lower = rank if rank is Provenance.METER_SIGNED else min(measurement.provenance, rank)
            measurement = Measurement(device.did, observed_at, measurement.registers, seq, lower, notice)
        return measurement, encode_measurement(measurement, packed)

    def _dead(self, batch: _Batch, frame: Frame, device: Device | None, reason: str, message: str, field: str) -> None:
        batch.receipts.append(Receipt(Outcome.DEAD_LETTER, 0, reason))
        batch.letters.append(
            DeadLetter(
                0,
                reason,
                _storable(message),
                _storable(field),
                "" if device is None else device.did,
                frame.protocol,
                _storable(frame.credential),
                _storable(frame.channel),
                frame.received_at,
                frame.payload,
            )
        )

    async def _answer(self, batch: _Batch, first: int) -> None:
        receipts = [Receipt(Outcome.STORED, first + item) if type(item) is int else item for item in batch.receipts]
        self.outcomes["stored"] += len(batch.entries)
        self.outcomes["duplicate"] += len(receipts) - len(batch.entries) - len(batch.letters)
        for letter in batch.letters:
            self.outcomes["dead_letter:" + letter.reason] += 1
        offset = 0
        for job, count in batch.parts:
            job.receipts += receipts[offset : offset + count]  # type: ignore[arg-type]  # no indices are left
            offset += count
            job.done += count
            if job.done == len(job.frames):
                self._jobs.popleft()
                if not job.future.done():
                    job.future.set_result(job.receipts)
                await self._release(job)

    async def _refuse_all(self, error: SinkUnavailable) -> None:
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(SinkUnavailable(str(error)))
                job.future.exception()
            await self._release(job)

    async def _release(self, job: _Job) -> None:
        self._frames -= len(job.frames)
        self._bytes -= job.size
        async with self._room:
            self._room.notify_all()


def _check_identity(device: Device, decoded: Decoded) -> bool:
    """Whether the frame is signed by the device. Raises Refusal."""
    for measurement in decoded.measurements:
        if measurement.did and measurement.did != device.did:
            raise Refusal("wrong_identity", f"the sender is {device.did}, the reading names {measurement.did}", "did")
    if not decoded.measurements:
        raise Refusal("no_measurement", "the frame holds no measurement")
    if len(decoded.measurements) > MAX_MEASUREMENTS:
        count = len(decoded.measurements)
        raise Refusal("too_many", f"{count} measurements in one frame; at most {MAX_MEASUREMENTS} are taken")
    proof = decoded.proof
    if proof is None:
        if not device.unsigned:
            raise Refusal("unsigned", f"{device.did} must sign its readings", "signature")
        return False
    if proof.did != device.did:
        raise Refusal("wrong_identity", f"the sender is {device.did}, the signature is {proof.did}'s", "did")
    if proof.network != device.network:
        raise Refusal("wrong_network", f"this is network {device.network}, not {proof.network}", "network")
    if not verify(_key_of(device, proof, decoded), proof.signature, proof.message):
        raise Refusal("signature", f"the signature is not that of {device.did}", "signature")
    return True


def _key_of(device: Device, proof: DeviceProof, decoded: Decoded) -> str:
    """The key that counted when the frame's readings were observed. Raises Refusal."""
    validity = device.validity
    version = proof.key_version
    key = None
    for measurement in decoded.measurements:
        key = validity.key_at(version, measurement.observed_at)
        if key is None:
            known = version == validity.version or any(span.version == version for span in validity.past)
            if known:
                at = measurement.observed_at
                raise Refusal("key_not_valid_then", f"key version {version} did not count at {at}", "observed_at")
            raise Refusal("key_version", f"the current key version is {validity.version}", "key_version")
    if key is None:
        raise Refusal("no_measurement", "the frame holds no measurement")
    return key


def _wrong_time(observed_at: object, earliest: int, latest: int) -> Refusal:
    if type(observed_at) is not int:
        return Refusal("invalid_value", "observed_at must be an integer", "observed_at")
    if observed_at > latest:
        return Refusal("future", f"observed at {observed_at}, later than {latest} (market clock)", "observed_at")
    return Refusal("stale", f"observed at {observed_at}, before {earliest} (market clock)", "observed_at")


def _storable(text: str) -> str:
    """Text that UTF-8 can write, cut to what a letter carries."""
    return text[:_MAX_TEXT].encode(errors="replace").decode()
