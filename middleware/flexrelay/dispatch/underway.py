"""Commands that are worked on: each by one task at a time, a bounded number of them at once."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Underway:
    """Tasks by command id. Who looks for commands that are due says so before (`look`), and each task says when it
    ends (`over`)."""

    def __init__(self, most: int) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._most = most
        self._over: set[str] = set()
        """Came to an end while it was read what is due: what was read of them is not true any more."""

    def look(self) -> None:
        self._over.clear()

    def free(self, spare: int = 0) -> bool:
        """Whether a task may begin that leaves so many places to others."""
        return len(self.tasks) < self._most - spare

    def has_room_for(self, command_id: str, spare: int = 0) -> bool:
        """Whether a task may begin on it, by what was read since `look`."""
        return command_id not in self.tasks and command_id not in self._over and self.free(spare)

    def begin(self, group: asyncio.TaskGroup, command_id: str, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks[command_id] = group.create_task(work, name=name)

    def over(self, command_id: str) -> None:
        del self.tasks[command_id]
        self._over.add(command_id)
