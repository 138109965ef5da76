"""Quality of a value: where it comes from (its rank as evidence) and what was noticed about it."""

from enum import IntEnum, IntFlag


class Provenance(IntEnum):
    """Rank as evidence: a higher one wins a dispute (markets.md, "Disputes")."""

    SUBSTITUTED = 0
    """Put in by a rule, e.g. the same interval of another day."""
    ESTIMATED = 1
    """Computed from neighbouring registers."""
    GATEWAY_ATTESTED = 2
    """Received from a device that cannot sign; the gateway signed for it."""
    METER_SIGNED = 3
    """Signed by the device itself."""


class Notice(IntFlag):
    """What was noticed about a reading; none of these refuses it."""

    NONE = 0
    LATE = 1
    """Came in when its market interval was over for longer than the windows' grace: where the window was closed
    already, it makes the next revision."""
    BACKFILLED = 2
    """Older than a reading of this device that was already there."""
    GAP = 4
    """Sequence numbers are missing before it."""
    ROLLOVER = 8
    """A register started anew after a declared meter exchange or roll-over."""
    DEVICE_FLAGGED = 16
    """The device itself marked the value as doubtful (a quality in the payload, e.g. OPC UA's StatusCode Uncertain)."""
