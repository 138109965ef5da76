"""Frames on their way from a protocol to the journal, and the sink whose return permits the acknowledgement.

The values are named tuples: one of each is made for every reading, and a frozen dataclass takes three times as long.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from flexrelay_schemas.measurement import Measurement


class Frame(NamedTuple):
    """The exact bytes that a device sent.

    `protocol` and `credential` name who sent it as the transport has authenticated it (e.g. "mqtt" and the device
    segment of a topic that the broker's access list binds to the user name); the gateway's registry binds them to a
    DID. `received_at` is wall-clock UTC milliseconds. `channel` is where it came in (topic, path), for people.
    """

    protocol: str
    credential: str
    payload: bytes
    received_at: int
    channel: str = ""


class DeviceProof(NamedTuple):
    """A device's signature over its reading: what was signed, with which version of the DID's key."""

    did: str
    network: str
    key_version: int
    message: bytes
    signature: bytes


class Decoded(NamedTuple):
    """What a codec made of one frame. `measurements` carry the DID that the frame claims, or "" when it names none
    (then the identity of the transport counts). `proof` is None where the device cannot sign."""

    measurements: tuple[Measurement, ...]
    proof: DeviceProof | None = None


class DecodeError(ValueError):
    """The frame cannot be decoded. `reason` is a short snake_case code, `field` where it is wrong."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(f"{reason}: {message}" + (f" [{field}]" if field else ""))
        self.reason = reason
        self.message = message
        self.field = field


class Codec(Protocol):
    """Bytes in, measurements out; pure."""

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError and nothing else, whatever the bytes are."""
        ...


class Outcome(Enum):
    """What became of a frame. All three are on disk, so all three permit the acknowledgement."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DEAD_LETTER = "dead_letter"


class Receipt(NamedTuple):
    """`position` in the journal (0 for a dead letter or duplicate); `reason` of a dead letter."""

    outcome: Outcome
    position: int = 0
    reason: str = ""


class Sink(Protocol):
    """Bounded: `put` waits while the gateway is full, and an adapter must then stop reading from its protocol."""

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        """Return one receipt a frame, in order, after the batch is on disk; only then acknowledge the device.

        Raises SinkUnavailable (nothing of the batch may be acknowledged; the same frames may come again).
        """
        ...


class SinkUnavailable(Exception):
    """The gateway cannot store now (disk full, shutting down). Do not acknowledge; the protocol sends again."""
