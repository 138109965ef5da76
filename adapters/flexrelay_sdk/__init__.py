"""What a device vendor implements and tests against: the adapter port, frames, codecs and commands."""

from flexrelay_sdk.command import Command, CommandState, CommandUpdate
from flexrelay_sdk.frame import Codec, Decoded, DecodeError, DeviceProof, Frame, Outcome, Receipt, Sink, SinkUnavailable
from flexrelay_sdk.port import Adapter, AdapterFactory, CommandTarget, Discoverer

__all__ = [
    "Adapter",
    "AdapterFactory",
    "Codec",
    "Command",
    "CommandState",
    "CommandTarget",
    "CommandUpdate",
    "DecodeError",
    "Decoded",
    "DeviceProof",
    "Discoverer",
    "Frame",
    "Outcome",
    "Receipt",
    "Sink",
    "SinkUnavailable",
]
