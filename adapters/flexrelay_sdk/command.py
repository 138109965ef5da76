"""Commands to devices, one life for all protocols.

    queued → sent → acked → confirmed
      └───────┴──→ failed | expired

The adapter tells the life up to `acked`, `failed` or `expired`; that `confirmed` follows is what the gateway finds in
the device's readings (`flexrelay_sdk.vocabulary.confirms`): the transport's word and the meter's are two things.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class CommandState(Enum):
    QUEUED = "queued"
    SENT = "sent"
    """Handed to the transport."""
    ACKED = "acked"
    """The device, or the transport for it, answered that it does it."""
    CONFIRMED = "confirmed"
    """A reading of the device shows it. Told by the gateway, never by an adapter."""
    FAILED = "failed"
    """The device answered that it does not, or the protocol refused."""
    EXPIRED = "expired"
    """Not acknowledged before `expires_at`; the device must not act on it any more."""

    @property
    def terminal(self) -> bool:
        """Nothing is sent any more; `confirmed` may still follow."""
        return self not in (CommandState.QUEUED, CommandState.SENT)


@dataclass(frozen=True, slots=True)
class Command:
    """`name` and `parameters` as in `flexrelay_sdk.vocabulary`: integers with the unit in the name (e.g. `power_w`,
    positive = withdrawal; `from_ms` and `until_ms` in market time). `expires_at` is wall-clock UTC ms; after it nothing
    may be handed to the protocol, and what the protocol keeps for a sleeping device must end then. `correlation_id`
    ties it to order and telemetry."""

    command_id: str
    did: str
    credential: str
    name: str
    parameters: Mapping[str, int]
    expires_at: int
    correlation_id: str

    @property
    def begins_at(self) -> int:
        """When its window begins on the wall's clock, UTC ms, where market time passes as fast: `expires_at` is the
        window's end. 0 without a window. What tells a device no `from_ms` may not reach it before."""
        from_ms, until_ms = self.parameters.get("from_ms", 0), self.parameters.get("until_ms", 0)
        return self.expires_at - (until_ms - from_ms) if from_ms < until_ms else 0


@dataclass(frozen=True, slots=True)
class CommandUpdate:
    """A step in a command's life; `detail` is the device's or transport's word."""

    command_id: str
    state: CommandState
    at: int
    detail: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
