"""The adapter port and its optional abilities."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from flexrelay_sdk.command import Command, CommandUpdate
from flexrelay_sdk.frame import Sink


class Adapter(Protocol):
    """One configured connection to one protocol endpoint: validate → start → stop.

    `run` connects, feeds frames to the sink and reconnects by itself until cancelled; `ready` is set while it is
    connected and subscribed. It must not acknowledge a frame before the sink has returned its receipt.
    """

    name: str

    def validate(self) -> None:
        """Check the configuration without I/O. Raises ValueError naming the field."""
        ...

    async def run(self, sink: Sink) -> None: ...

    @property
    def connected(self) -> bool: ...


class CommandTarget(Protocol):
    """Optional: the adapter can command devices. `on_update` is awaited for every state the command reaches."""

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        """Returns when the command is terminal; honours `expires_at`."""
        ...


class Discoverer(Protocol):
    """Optional: the adapter can list devices that are not bound yet, by credential."""

    def discover(self) -> AsyncIterator[str]: ...
