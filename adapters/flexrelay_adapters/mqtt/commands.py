"""Commands on MQTT: how they and their answers are written."""

from typing import Protocol

from flexrelay_adapters._commands import CommandResult, OnUpdate, Waiting, command_payload, parse_result
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Command

__all__ = ["CommandResult", "Dialect", "OnUpdate", "OwnDialect", "Waiting", "command_payload", "parse_result"]


class Dialect(Protocol):
    """How commands and answers are written."""

    def topics(self, results: str) -> tuple[TopicPattern, ...]:
        """Where answers come, from the configured topic of results."""
        ...

    def payload(self, command: Command) -> bytes:
        """Raises ValueError for a command that cannot be written: it ends as failed."""
        ...

    def tells_beginning(self, command: Command) -> bool:
        """Whether the device is told when to begin; if not, it gets the command then."""
        ...

    def result(self, topic: str, payload: bytes) -> CommandResult | None:
        """None: it says nothing about a command's end. Raises ValueError for what is no answer."""
        ...


class OwnDialect:
    """flexrelay's own."""

    def topics(self, results: str) -> tuple[TopicPattern, ...]:
        return (TopicPattern(results),)

    def payload(self, command: Command) -> bytes:
        return command_payload(command)

    def tells_beginning(self, command: Command) -> bool:
        return True

    def result(self, topic: str, payload: bytes) -> CommandResult | None:
        return parse_result(payload)
