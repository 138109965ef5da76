"""The adapter's configuration: where callbacks come in, what 12 bytes mean, what 8 bytes say."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from flexrelay_adapters._binary import BinaryCommand, BinaryLayout
from flexrelay_adapters._pushed import PushedListen, PushPath
from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.mapping import Mapping
from flexrelay_sdk.vocabulary import COMMANDS

DOWNLINK_BYTES = 8


class SigfoxConfig(PushedListen, AdapterConfig):
    """One group of devices of one kind. Every identity in `tokens_file` is the Sigfox backend; which device it was, the
    backend says, which has authenticated it."""

    name: str = "sigfox"
    path: PushPath = "/sigfox"
    tokens_file: Path
    payload: BinaryLayout
    mapping: Mapping
    """Of the fields of `payload`. Without `observed_at` a reading gets the backend's time of reception."""
    commands: dict[str, BinaryCommand] = Field(default_factory=dict)
    """Commands as the 8 bytes of a downlink."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mapping.items is not None:
            raise ValueError("mapping.items: a message is one reading")
        for name, command in self.commands.items():
            if name not in COMMANDS:
                raise ValueError(f"commands: {name!r} is no command; known are {', '.join(sorted(COMMANDS))}")
            if command.size > DOWNLINK_BYTES:
                raise ValueError(f"commands.{name}: {command.size} bytes; a downlink has {DOWNLINK_BYTES}")
        return self
