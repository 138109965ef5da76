"""Commands that wait for their devices to fetch them."""

import asyncio
import time
from collections.abc import Callable

from flexrelay_adapters._commands import CommandResult, OnUpdate, Waiting, command_payload
from flexrelay_adapters._http import Refusal
from flexrelay_sdk import Command, CommandState


class Mailbox:
    """One command's life is `execute`; `fetch` and `answer` are the device's side. `clock` is wall-clock UTC ms."""

    def __init__(self, repeat_s: float, clock: Callable[[], int]) -> None:
        self._repeat_s = repeat_s
        self._clock = clock
        self._waiting: dict[str, Waiting] = {}
        self._given: dict[str, float] = {}
        self._arrived = asyncio.Condition()

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Tell the states until it is acked, failed or expired. Raises ValueError when it is under way already."""
        if command.command_id in self._waiting:
            raise ValueError(f"command {command.command_id} is under way")
        waiting = Waiting(command, on_update)
        await waiting.tell(CommandState.QUEUED, self._clock())
        self._waiting[command.command_id] = waiting
        try:
            async with self._arrived:
                self._arrived.notify_all()
            try:
                async with asyncio.timeout(max(0, command.expires_at - self._clock()) / 1000):
                    await waiting.answered.wait()
            except TimeoutError:
                await waiting.tell(CommandState.EXPIRED, self._clock(), "not answered in time")
        finally:
            del self._waiting[command.command_id]
            self._given.pop(command.command_id, None)

    async def fetch(self, credential: str, wait_s: float) -> list[bytes]:
        """The commands that the device has not had, or has had long ago without an answer; waits for one."""
        try:
            async with asyncio.timeout(wait_s), self._arrived:
                while not (due := self._due(credential)):
                    await self._arrived.wait()
        except TimeoutError:
            due = self._due(credential)
        for waiting in due:
            if waiting.command.command_id in self._waiting:  # else it is over by now
                self._given[waiting.command.command_id] = time.monotonic()
                await waiting.tell(CommandState.SENT, self._clock())
        now, there = self._clock(), self._waiting
        commands = [waiting.command for waiting in due]
        return [command_payload(each) for each in commands if each.command_id in there and each.expires_at > now]

    async def answer(self, credential: str, result: CommandResult) -> None:
        """Raises Refusal(404) when this device has no such command waiting."""
        waiting = self._waiting.get(result.command_id)
        if waiting is None or waiting.command.credential != credential:
            raise Refusal(404, "unknown_command", "no such command waits: answered, expired, or another device's")
        await waiting.hear(CommandState(result.state), self._clock(), result.detail, result.values)

    def _due(self, credential: str) -> list[Waiting]:
        before = time.monotonic() - self._repeat_s
        now = self._clock()
        return [
            waiting
            for waiting in self._waiting.values()
            if waiting.command.credential == credential
            and waiting.command.expires_at > now
            and not waiting.answered.is_set()
            and self._given.get(waiting.command.command_id, float("-inf")) <= before
        ]
