"""The journal port: what is appended is on disk when `append` returns; consumers read from a position.

Positions count from 1 without holes. The effects of a consumer and its position are stored in one transaction of the
consumer's own store; what it acknowledges to the journal only says what may be truncated.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from flexrelay_schemas.measurement import Measurement

PARTITIONS = 256


class Entry(NamedTuple):
    """One frame: the exact received bytes, the verified identity, and the decoded measurements.

    `position` is given by the journal (0 before); `received_at` is wall-clock UTC ms; `signed` says that the payload
    is itself the device's signed reading. All measurements are of `did`. `block` are the measurements' bytes in the
    journal (`segment.encode_measurement`) where the appender has made them already; the journal never gives it back.
    """

    position: int
    partition: int
    did: str
    protocol: str
    credential: str
    channel: str
    received_at: int
    signed: bool
    payload: bytes
    measurements: tuple[Measurement, ...]
    block: bytes = b""

    @property
    def evidence(self) -> bytes | None:
        """The exact bytes that prove the reading: a signed payload. None where the gateway still has to attest it."""
        return self.payload if self.signed else None


class DeadLetter(NamedTuple):
    """A frame that was refused: its exact bytes, why (`reason` a short code), and the field where it is wrong.

    `did` is empty when the sender could not be identified; `letter_id` is given by the journal (0 before).
    """

    letter_id: int
    reason: str
    message: str
    field: str
    did: str
    protocol: str
    credential: str
    channel: str
    received_at: int
    payload: bytes


class DeadLetterCount(NamedTuple):
    """What is kept, and what was dropped since the journal began because a bound was reached."""

    kept: int
    kept_bytes: int
    dropped: int
    dropped_bytes: int


class JournalUnavailable(Exception):
    """Nothing of the batch was stored (disk full, closed); the same batch may be appended again later."""


class JournalLocked(JournalUnavailable):
    """Another process has the journal open."""


class JournalCorrupt(Exception):
    """What is stored is not what was written; the message names the place."""


class Journal(Protocol):
    """Appends, reads and truncates entries."""

    @property
    def end(self) -> int:
        """The position of the newest entry, 0 when there never was one."""
        ...

    @property
    def begin(self) -> int:
        """The position of the oldest entry that is still there (`end` + 1 when there is none)."""
        ...

    async def append(self, entries: Sequence[Entry], letters: Sequence[DeadLetter] = ()) -> int:
        """Store both in one durable commit; the position of the first entry (the others follow without holes).

        Raises JournalUnavailable: then nothing of the batch is there.
        """
        ...

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Up to `limit` entries with position > `after`, in order. Raises JournalCorrupt, and ValueError when
        entries after `after` have been truncated already (a consumer must not skip silently)."""
        ...

    async def entry(self, position: int) -> Entry | None:
        """The entry, or None when it was truncated or is not there yet. Raises JournalCorrupt."""
        ...

    async def wait(self, after: int) -> None:
        """Return when there is an entry with position > `after`."""
        ...

    async def acknowledge(self, consumer: str, position: int) -> None:
        """`consumer` has stored its effects up to `position`; a consumer exists from its first acknowledgement."""
        ...

    async def truncate(self, received_before: int) -> int:
        """Drop entries received before this instant (wall-clock UTC ms), but none that a consumer still needs.

        The number of entries dropped; whole batches only, oldest first.
        """
        ...


class DeadLetters(Protocol):
    """The refused frames of a journal: bounded in count and bytes, per sender and in all."""

    @property
    def dropped(self) -> int:
        """Letters that were dropped because of a bound since this object was made."""
        ...

    async def letters(self, after: int = 0, limit: int = 100) -> list[DeadLetter]: ...

    async def letter(self, letter_id: int) -> DeadLetter | None: ...

    async def remove(self, letter_ids: Sequence[int]) -> int:
        """The number that was removed."""
        ...

    async def count(self) -> DeadLetterCount: ...
