"""Commands as JSON, on every way that carries flexrelay's own: what is sent, what comes back, which wait for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from flexrelay_schemas.canonical import MAX_INTEGER, CanonicalError, canonical, parse
from flexrelay_schemas.model import Model
from flexrelay_sdk import Command, CommandState, CommandUpdate, SinkUnavailable

log = logging.getLogger(__name__)

OnUpdate = Callable[[CommandUpdate], Awaitable[None]]
_CLOCK_MS: Final = 30_000
"""How long a clock that was set is not noticed."""


class CommandResult(Model):
    """A device's answer: `{"v": 1, "command_id": …, "state": "acked" | "failed", "values": {…}, "detail": …}`."""

    v: Literal[1] = 1
    command_id: Annotated[str, Field(min_length=1, max_length=200)]
    state: Literal["acked", "failed"]
    values: dict[str, Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]] = Field(default_factory=dict)
    detail: Annotated[str, Field(max_length=500)] = ""


def command_payload(command: Command) -> bytes:
    """The JSON that a device gets: v, command_id, name, parameters, expires_at (wall-clock UTC ms)."""
    return canonical(
        {
            "v": 1,
            "command_id": command.command_id,
            "name": command.name,
            "parameters": dict(command.parameters),
            "expires_at": command.expires_at,
        }
    )


def parse_result(payload: bytes) -> CommandResult:
    """Raises ValueError for anything that is no command result."""
    try:
        return CommandResult.model_validate(parse(payload))
    except (CanonicalError, ValidationError) as error:
        raise ValueError(f"not a command result: {error}") from None


async def begun(command: Command, clock: Callable[[], int]) -> None:
    """Return when the command's window has begun: for devices that are not told when to act."""
    await reached(command.begins_at, clock)


async def reached(instant_ms: int, clock: Callable[[], int]) -> None:
    """Return when the clock shows the instant, also when it is set meanwhile: never before."""
    while (left_ms := instant_ms - clock()) > 0:  # noqa: ASYNC110 - no clock says that it was set
        await asyncio.sleep(min(left_ms, _CLOCK_MS) / 1000)


class Newest:
    """Which command of a name goes, or went, out to each device last, since the start: it alone may be ended.

    The gateway decides by what is on disk. Windows that adjoin begin and end at one instant, so that a command may go
    out between that look and the end of the one before.
    """

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}

    def begin(self, command: Command) -> None:
        """Before it is told that it is sent."""
        self._ids[command.credential, command.name] = command.command_id

    def holds(self, command: Command) -> bool:
        """Whether no other went out after it, as far as is known."""
        return self._ids.get((command.credential, command.name), command.command_id) == command.command_id

    def over(self, command: Command) -> None:
        """It did not go out, failed, or was ended: it keeps no other from its end."""
        if self.holds(command):
            self._ids.pop((command.credential, command.name), None)

    def check_end(self, command: Command) -> None:
        """Raises ConnectionError when a newer one goes out: the gateway looks again."""
        if not self.holds(command):
            raise ConnectionError(f"a newer {command.name} goes out to {command.credential}")


class Waiting:
    """A command under way; updates are told one after the other, each state once, and exactly one is terminal."""

    def __init__(self, command: Command, on_update: OnUpdate) -> None:
        self.command = command
        self.answered = asyncio.Event()
        self._on_update = on_update
        self._sent = False
        self._telling = asyncio.Lock()

    async def tell(
        self, state: CommandState, at: int, detail: str = "", values: Mapping[str, int] | None = None
    ) -> None:
        """Pass a state on unless the command is terminal already. Raises what `on_update` raises."""
        async with self._telling:
            await self._tell(state, at, detail, values or {})

    async def hear(
        self, state: CommandState, at: int, detail: str = "", values: Mapping[str, int] | None = None
    ) -> None:
        """Pass a device's answer on: it can be here before the transport's word that the command was sent."""
        async with self._telling:
            await self._tell(CommandState.SENT, at)
            await self._tell(state, at, detail, values or {})

    async def record(
        self, state: CommandState, at: int, detail: str = "", values: Mapping[str, int] | None = None
    ) -> None:
        """`hear`, for a transport that delivers again what is not acknowledged. Raises SinkUnavailable when the answer
        could not be kept."""
        try:
            await self.hear(state, at, detail, values)
        except Exception as error:
            log.exception("the answer to command %s could not be recorded", self.command.command_id)
            raise SinkUnavailable(f"the answer to command {self.command.command_id} could not be recorded") from error

    async def _tell(
        self, state: CommandState, at: int, detail: str = "", values: Mapping[str, int] | None = None
    ) -> None:
        if self.answered.is_set() or (state is CommandState.SENT and self._sent):
            return
        await self._on_update(CommandUpdate(self.command.command_id, state, at, detail, values or {}))
        self._sent = self._sent or state is CommandState.SENT
        if state.terminal:
            self.answered.set()
