"""Commands to a device in queue mode, one at a time: what is sent when it sleeps, wakes, and sleeps again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flexrelay_adapters.lwm2m.coap.layer import NoAnswer
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.commands import Commander
from flexrelay_adapters.lwm2m.config import CommandConfig
from flexrelay_adapters.lwm2m.registration import Parameters, Registrations
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, until

pytestmark = pytest.mark.timeout(120)


class Asleep:
    """`Operations` of which a test says what becomes of each writing."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[None]] = []

    async def write(
        self, peer: Peer, path: str, values: Mapping[str, Any], content_format: int, *, sent: Callable[[], None]
    ) -> None:
        sent()
        self.asked.append(asyncio.get_running_loop().create_future())
        await self.asked[-1]


def command(name: str) -> Command:
    return Command(name, "did:x", "c", "set_power", {"power_w": 500}, time.time_ns() // 1_000_000 + 90_000, "order")


async def test_a_device_that_wakes_while_it_does_not_answer_is_asked_again() -> None:
    operations, registrations = Asleep(), Registrations(10, 60.0)
    peer = Peer(("127.0.0.1", 1), "c", False, lambda data: None)
    device = registrations.register(peer, Parameters("e", queue=True), ((3310, 0),), time.time())
    config = CommandConfig(rated_w=1_000, confirm=False)
    commander = Commander(config, operations, registrations, time.time)  # type: ignore[arg-type]  # has what is used
    life = Life()
    async with asyncio.TaskGroup() as group:
        group.create_task(commander.execute(command("a"), life))
        await until(lambda: len(operations.asked) == 1, 60, "the first try")
        registrations.wake(device, peer, time.time() + 1)
        operations.asked[0].set_exception(NoAnswer("asleep"))
        await until(lambda: len(operations.asked) == 2, 60, "the second try")
        operations.asked[1].set_result(None)
    assert life.states[-1] is CommandState.ACKED


async def test_a_device_that_fell_asleep_is_not_asked_by_the_next_command() -> None:
    """Each would take its turn for as long as CoAP tries, and the device's next awakening might be missed."""
    operations, registrations = Asleep(), Registrations(10, 60.0)
    peer = Peer(("127.0.0.1", 1), "c", False, lambda data: None)
    device = registrations.register(peer, Parameters("e", queue=True), ((3310, 0),), time.time())
    config = CommandConfig(rated_w=1_000, confirm=False)
    commander = Commander(config, operations, registrations, time.time)  # type: ignore[arg-type]  # has what is used
    lives = [Life(), Life()]
    async with asyncio.TaskGroup() as group:
        for name, life in zip("ab", lives, strict=True):
            group.create_task(commander.execute(command(name), life))
        await until(lambda: len(operations.asked) == 1, 60, "the first try")
        operations.asked[0].set_exception(NoAnswer("asleep"))
        await until(lambda: len(registrations._waiters.get("c", ())) == 2, 60, "both commands to wait for the device")
        assert len(operations.asked) == 1
        registrations.wake(device, peer, time.time())
        for n in (1, 2):
            await until(lambda n=n: len(operations.asked) == n + 1, 60, "a try of each")  # type: ignore[misc]  # a lambda's default
            operations.asked[n].set_result(None)
    assert [life.states[-1] for life in lives] == [CommandState.ACKED] * 2
