"""Commands that wait to be fetched."""

from __future__ import annotations

import asyncio

from flexrelay_adapters._commands import CommandResult
from flexrelay_adapters.http.mailbox import Mailbox
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import Life, until


async def test_what_is_over_while_another_is_being_told_is_not_given() -> None:
    mailbox, ends_at = Mailbox(10.0, wall_ms), wall_ms() + 90_000
    first, second = (Command(name, "did:x", "d", "switch", {"on": 0}, ends_at, "o") for name in ("first", "second"))
    life = Life()
    answered = asyncio.create_task(mailbox.execute(second, life))

    async def slowly(update: CommandUpdate) -> None:
        if update.state is CommandState.SENT:  # the second was fetched before a restart
            await mailbox.answer("d", CommandResult(command_id="second", state="acked"))
            await answered

    executing = asyncio.create_task(mailbox.execute(first, slowly))
    await until(lambda: len(mailbox._waiting) == 2, 60)
    mailbox._waiting = dict(sorted(mailbox._waiting.items()))  # the first stands first
    commands = await mailbox.fetch("d", 0)
    assert len(commands) == 1 and b'"first"' in commands[0]
    assert set(mailbox._given) == {"first"} and life.states[-1] is CommandState.ACKED
    executing.cancel()
    await asyncio.gather(executing, return_exceptions=True)
    assert not mailbox._given and not mailbox._waiting
