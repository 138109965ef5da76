"""Commands to devices: queued → sent → acked | failed | expired."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class CommandState(Enum):
    QUEUED = "queued"
    SENT = "sent"
    """Handed to the transport."""
    ACKED = "acked"
    """The device answered that it does it."""
    FAILED = "failed"
    """The device answered that it does not, or the protocol refused."""
    EXPIRED = "expired"
    """Not acknowledged before `expires_at`; the device must not act on it any more."""

    @property
    def terminal(self) -> bool:
        return self in (CommandState.ACKED, CommandState.FAILED, CommandState.EXPIRED)


@dataclass(frozen=True, slots=True)
class Command:
    """`parameters` are integers with the unit in the name (e.g. `power_w`, positive = withdrawal; `from_ms` and
    `until_ms` in market time). `expires_at` is wall-clock UTC ms. `correlation_id` ties it to order and telemetry."""

    command_id: str
    did: str
    credential: str
    name: str
    parameters: Mapping[str, int]
    expires_at: int
    correlation_id: str


@dataclass(frozen=True, slots=True)
class CommandUpdate:
    """A step in a command's life; `detail` is the device's or transport's word."""

    command_id: str
    state: CommandState
    at: int
    detail: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
