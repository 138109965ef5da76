"""Commands that wait for the moment at which their device listens."""

import asyncio
from collections.abc import Callable, Mapping

from flexrelay_adapters._binary import BinaryCommand
from flexrelay_adapters._commands import OnUpdate, Waiting
from flexrelay_adapters.sigfox.codec import Acknowledgement
from flexrelay_adapters.sigfox.config import DOWNLINK_BYTES
from flexrelay_sdk import Command, CommandState


class Downlinks:
    """One downlink a device at a time: the acknowledgement names no downlink, so it is the last one's. `clock` is
    wall-clock UTC ms."""

    def __init__(self, commands: Mapping[str, BinaryCommand], clock: Callable[[], int]) -> None:
        self._commands = commands
        self._clock = clock
        self._waiting: dict[str, tuple[Waiting, bytes]] = {}
        self._given: dict[str, str] = {}
        """Device → the command that its last downlink was."""

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Tell the states until it is acked, failed or expired. Raises ValueError when it is under way already."""
        if command.command_id in self._waiting:
            raise ValueError(f"command {command.command_id} is under way")
        waiting = Waiting(command, on_update)
        await waiting.tell(CommandState.QUEUED, self._clock())
        form = self._commands.get(command.name)
        try:
            if form is None:
                raise ValueError(f"{command.name} has no downlink in `commands`")
            data = form.write({**command.parameters, "expires_at": command.expires_at}).ljust(DOWNLINK_BYTES, b"\0")
        except ValueError as error:
            await waiting.tell(CommandState.FAILED, self._clock(), str(error)[:500])
            return
        self._waiting[command.command_id] = (waiting, data)
        try:
            async with asyncio.timeout(max(0, command.expires_at - self._clock()) / 1000):
                await waiting.answered.wait()
        except TimeoutError:
            await waiting.tell(CommandState.EXPIRED, self._clock(), "the device did not ask or answer in time")
        finally:
            del self._waiting[command.command_id]
            if self._given.get(command.credential) == command.command_id:
                del self._given[command.credential]

    async def take(self, device: str) -> bytes | None:
        """The device listens: its 8 bytes, None when there is nothing for it. What was given and not acknowledged is
        given again: the device has not heard it, or its answer was lost."""
        now = self._clock()
        mine = [
            (waiting, data)
            for waiting, data in self._waiting.values()
            if waiting.command.credential == device
            and self._due(waiting.command, now)
            and not waiting.answered.is_set()
        ]
        if not mine:
            return None
        mine.sort(key=lambda each: each[0].command.command_id != self._given.get(device))
        waiting, data = mine[0]
        await waiting.tell(CommandState.SENT, now)
        if waiting.command.command_id not in self._waiting:  # over by now
            return None
        self._given[device] = waiting.command.command_id
        return data

    def _due(self, command: Command, now: int) -> bool:
        """Whether the device may have it now: not after its end, nor before its window when it is not told of that."""
        form = self._commands[command.name]
        return command.expires_at > now and ("from_ms" in form.fields or command.begins_at <= now)

    async def answer(self, told: Acknowledgement) -> bool:
        """Whether a command was waiting for it."""
        found = self._waiting.get(self._given.get(told.device, ""))
        if found is None:
            return False
        if not told.pending:
            state = CommandState.ACKED if told.done else CommandState.FAILED
            await found[0].tell(state, self._clock(), told.detail)
        return True
