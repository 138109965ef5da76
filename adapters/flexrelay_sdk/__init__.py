"""What a device vendor implements and tests against: the adapter port, frames, codecs and commands.

Beside it: `flexrelay_sdk.config` (base of every configuration), `flexrelay_sdk.mapping` (declarative mapping of values
to registers), `flexrelay_sdk.simulation` (devices that measure and obey, for every protocol), `flexrelay_sdk.testkit`
(the tests that an adapter must pass; needs pytest) and `flexrelay_sdk.quality` (the scale of adapters).
"""

from flexrelay_sdk.abilities import Ability, abilities
from flexrelay_sdk.command import Command, CommandState, CommandUpdate
from flexrelay_sdk.config import AdapterConfig, Section
from flexrelay_sdk.facts import DeviceFacts, FactTeller
from flexrelay_sdk.frame import Codec, Decoded, DecodeError, DeviceProof, Frame, Outcome, Receipt, Sink, SinkUnavailable
from flexrelay_sdk.port import (
    Adapter,
    AdapterFactory,
    Backfiller,
    ClockState,
    CommandEnder,
    CommandTarget,
    Discoverer,
    TimeSetter,
)

__all__ = [
    "Ability",
    "Adapter",
    "AdapterConfig",
    "AdapterFactory",
    "Backfiller",
    "ClockState",
    "Codec",
    "Command",
    "CommandEnder",
    "CommandState",
    "CommandTarget",
    "CommandUpdate",
    "DecodeError",
    "Decoded",
    "DeviceFacts",
    "DeviceProof",
    "Discoverer",
    "FactTeller",
    "Frame",
    "Outcome",
    "Receipt",
    "Section",
    "Sink",
    "SinkUnavailable",
    "TimeSetter",
    "abilities",
]
