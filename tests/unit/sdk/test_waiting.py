"""A command under way: the ladder of its states holds whatever comes first."""

import asyncio

from flexrelay_adapters._commands import Waiting
from flexrelay_sdk import Command, CommandState, CommandUpdate


class Told:
    def __init__(self) -> None:
        self.updates: list[CommandUpdate] = []
        self.waiting = Waiting(Command("c1", None, "meter", "set_power", {"power_w": 1}, 9_000, "order"), self.note)

    async def note(self, update: CommandUpdate) -> None:
        await asyncio.sleep(0)
        self.updates.append(update)

    @property
    def states(self) -> list[str]:
        return [update.state.value for update in self.updates]


async def test_an_answer_before_the_transports_word_says_that_it_was_sent() -> None:
    told = Told()
    await told.waiting.tell(CommandState.QUEUED, 1)
    await told.waiting.hear(CommandState.FAILED, 2, "too much", {"power_w": 0})
    await told.waiting.tell(CommandState.SENT, 3)
    assert told.states == ["queued", "sent", "failed"]
    assert told.updates[-1].detail == "too much" and told.updates[-1].values == {"power_w": 0}


async def test_each_state_is_told_once_and_nothing_after_the_end() -> None:
    told = Told()
    await told.waiting.tell(CommandState.SENT, 1)
    await asyncio.gather(*(told.waiting.hear(CommandState.ACKED, 2) for _ in range(5)))
    await told.waiting.tell(CommandState.EXPIRED, 3)
    assert told.states == ["sent", "acked"] and told.waiting.answered.is_set()


async def test_what_expires_unsent_was_never_sent() -> None:
    told = Told()
    await told.waiting.tell(CommandState.QUEUED, 1)
    await told.waiting.tell(CommandState.EXPIRED, 2)
    await told.waiting.hear(CommandState.ACKED, 3)
    assert told.states == ["queued", "expired"]
