"""The adapter port and its optional abilities."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from flexrelay_sdk.command import Command, CommandUpdate
from flexrelay_sdk.frame import Codec, Sink


class Adapter(Protocol):
    """One configured connection to one protocol endpoint: validate → start → stop.

    `run` connects, feeds frames to the sink and reconnects by itself until cancelled; `connected` is true while it is
    connected and subscribed. It must not acknowledge a frame before the sink has returned its receipt.
    """

    name: str
    protocol: str
    """The protocol that its frames carry; credentials are bound to devices under this name."""

    @property
    def endpoint(self) -> str:
        """Where it is connected to, for people; without credentials."""
        ...

    def validate(self) -> None:
        """Check the configuration without I/O. Raises ValueError naming the field."""
        ...

    async def run(self, sink: Sink) -> None: ...

    @property
    def connected(self) -> bool: ...

    def channels_for(self, credential: str) -> Sequence[str]:
        """Where a device with this credential sends its readings (topics, paths): for whoever sets the device up.

        Raises ValueError for what can be no credential of this protocol."""
        ...

    def codec_for(self, channel: str) -> Codec | None:
        """What decodes a frame that came on this channel (dead letters are driven in again with it); None: not its."""
        ...


class AdapterFactory(Protocol):
    """What an entry point of the group `flexrelay.adapters` names: makes an adapter of its configuration section."""

    def __call__(self, name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> Adapter:
        """`section` is the configuration without `type`; relative paths in it are relative to `folder`; `native`
        decodes flexrelay's own signed readings. No I/O. Raises ValueError whose text begins with the field's path."""
        ...


@runtime_checkable
class CommandTarget(Protocol):
    """Optional: the adapter can command devices. `on_update` is awaited for every state the command reaches."""

    @property
    def can_command(self) -> bool:
        """Whether it is configured to."""
        ...

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        """Returns when the command is terminal; honours `expires_at`."""
        ...


@runtime_checkable
class CommandEnder(Protocol):
    """Optional, beside `CommandTarget`: some commands are not ended by the device itself when their time is over.

    The gateway keeps on disk which commands were handed over, and has them ended after their `expires_at`, or once they
    failed, however often it was restarted in between.
    """

    def must_end(self, command: Command) -> bool:
        """Whether there may be something to end once it was sent. No I/O."""
        ...

    async def end(self, command: Command, before: Command | None = None) -> None:
        """Write back what the command left behind; nothing where the device did that, or a newer command holds it.
        `before` is an older command that the device was told, has not refused, and whose time is not over: it rules
        again.

        Called until it returns. Raises ConnectionError when the device cannot be reached now, ValueError when it will
        never be ended so (the device refuses, or is another one).
        """
        ...


@runtime_checkable
class Discoverer(Protocol):
    """Optional: the adapter can list devices that are not bound yet, by credential."""

    def discover(self) -> AsyncIterator[str]:
        """Each credential once, bound ones among them or not (the gateway knows which are), and then an end. May be
        asked at any time; nothing is let in by it. Raises ConnectionError when the other side cannot be asked."""
        ...


@runtime_checkable
class Backfiller(Protocol):
    """Optional: the device or server keeps a history that can be read after an outage.

    The gateway asks for what is missing between a device's newest reading before an outage and its first one after, and
    for what an operator wants.
    """

    async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
        """Put what was observed in [from_ms, until_ms) (UTC ms) into the sink, oldest first; of all devices when none
        is named. Returns the number of frames put. What is known already is put again: the gateway knows duplicates.

        Raises ConnectionError when the source cannot be read, SinkUnavailable as the sink does, ValueError when it is
        configured to read no history.
        """
        ...


class ClockState(NamedTuple):
    """`offset_ms` is device − gateway before anything was set, None when the device does not tell its time; `set`
    is whether its clock was set."""

    offset_ms: int | None
    set: bool


@runtime_checkable
class TimeSetter(Protocol):
    """Optional: the adapter can read and set a device's clock."""

    async def sync_time(self, credential: str) -> ClockState:
        """Set the device's clock to UTC. Raises ConnectionError when the device cannot be reached, ValueError for a
        credential that is none of this adapter's."""
        ...
