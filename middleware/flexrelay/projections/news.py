"""News for those who read the projections' tables again when something came that concerns them."""

import asyncio
from collections.abc import Sequence

from flexrelay.projections.projector import Event


class News:
    """Whether events of these names came that were not looked at yet. At the start nothing was."""

    def __init__(self, *names: str) -> None:
        self._names = frozenset(names)
        self._some = asyncio.Event()
        self._some.set()

    def heard(self, events: Sequence[Event]) -> None:
        """A reader of the projections."""
        if any(event.name in self._names for event in events):
            self._some.set()

    def again(self) -> None:
        """What was looked at has to be looked at once more."""
        self._some.set()

    def taken(self) -> bool:
        """Whether there is something to look at; from here on it counts as looked at."""
        some = self._some.is_set()
        self._some.clear()
        return some

    async def wait(self) -> None:
        """Until there is something to look at; from here on it counts as looked at."""
        await self._some.wait()
        self._some.clear()
