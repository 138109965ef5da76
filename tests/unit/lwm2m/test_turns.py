"""Commands to a device, one at a time: what is sent when it sleeps, wakes, sleeps again; what is ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from flexrelay_adapters.lwm2m import commands
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.commands import Commander
from flexrelay_adapters.lwm2m.config import CommandConfig
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_adapters.lwm2m.operations import Refused
from flexrelay_adapters.lwm2m.registration import Parameters, Registration, Registrations
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, until

pytestmark = pytest.mark.timeout(300)


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


class Relay:
    """`Operations` of a device with object 3312; `broken` is raised instead. Writing the dimmer value `deaf_to` gets no
    answer."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"5850": True, "5851": 100}
        self.broken: Exception | None = None
        self.deaf_to: int | None = None
        self.unheard = 0

    async def write(
        self,
        peer: Peer,
        path: str,
        values: Mapping[str, Any],
        content_format: int,
        *,
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        if self.broken is not None:
            raise self.broken
        sent()
        if self.deaf_to is not None and values.get("5851") == self.deaf_to:
            self.unheard += 1
            raise NoAnswer("deaf")
        self.values.update(values)

    async def read(self, peer: Peer, path: str, content_format: int) -> list[Record]:
        if self.broken is not None:
            raise self.broken
        return [Record((3312, 0, int(name)), value) for name, value in self.values.items()]


def controlled() -> tuple[Relay, Commander, Registrations, Registration]:
    """A device with the object 3312, and what commands it."""
    relay, registrations = Relay(), Registrations(10, 60.0)
    peer = Peer(("127.0.0.1", 1), "c", False, lambda data: None)
    device = registrations.register(peer, Parameters("e", version="1.1"), ((3312, 0),), time.time())
    config = CommandConfig(rated_w=1_000, via="power_control")
    commander = Commander(config, relay, registrations, time.time)  # type: ignore[arg-type]  # has what is used
    return relay, commander, registrations, device


async def test_what_object_3312_was_told_is_ended_unless_somebody_decided_since() -> None:
    relay, commander, registrations, device = controlled()
    half, older = command("half"), replace(command("older"), parameters={"power_w": 0})
    life = Life()
    await commander.execute(half, life)
    assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
    assert relay.values == {"5850": True, "5851": 50} and commander.must_end(half)
    await commander.end(half, older)
    assert relay.values == {"5850": False, "5851": 0}, "the older one rules again"
    await commander.end(older, None)
    assert relay.values == {"5850": True, "5851": 100}
    await commander.execute(half, Life())
    relay.values["5851"] = 20  # at the device itself
    await commander.end(half, None)
    assert relay.values == {"5850": True, "5851": 20}
    for broken, raised in (
        (NoAnswer("asleep"), ConnectionError),
        (Refused(0xA3, "busy"), ConnectionError),
        (Refused(0x84, "no such object"), ValueError),
    ):
        relay.broken = broken
        with pytest.raises(raised):
            await commander.end(half, None)
    registrations.remove(device)
    waiting = asyncio.create_task(commander.end(half, None))
    await until(lambda: "c" in registrations._waiters, 60, "it to wait for the device")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not commander._turns and not commander._users


async def test_the_end_of_an_older_command_leaves_the_same_value_of_a_newer_one() -> None:
    relay, commander, *_ = controlled()
    older, newer = command("older"), command("newer")
    off = replace(command("off"), name="switch", parameters={"on": 0})
    none = replace(command("none"), parameters={"power_w": 0})
    await commander.execute(older, Life())
    await commander.execute(newer, Life())
    await commander.end(older, None)  # the gateway had looked before the newer one was sent
    assert relay.values == {"5850": True, "5851": 50}
    await commander.end(newer, None)
    assert relay.values == {"5850": True, "5851": 100}
    await commander.execute(none, Life())
    await commander.execute(off, Life())
    await commander.end(none, None)
    assert relay.values == {"5850": False, "5851": 100}, "it is switched off still"
    await commander.end(off, None)
    assert relay.values == {"5850": True, "5851": 100} and not commander._wrote


async def test_an_older_value_goes_with_a_newer_command_that_did_not_come() -> None:
    """The newer one held the device, as far as the gateway knew, when the older one was over."""
    relay, commander, *_ = controlled()
    older, refused = command("older"), replace(command("refused"), parameters={"power_w": 200})
    lost = replace(command("lost"), parameters={"power_w": 300})
    await commander.execute(older, Life())
    for broken, newer, state in (
        (Refused(0x80, "no"), refused, CommandState.FAILED),
        (NoAnswer("lost"), lost, CommandState.EXPIRED),
    ):
        relay.broken, life = broken, Life()
        if newer is lost:
            newer = replace(lost, expires_at=time.time_ns() // 1_000_000 + 700)
        await commander.execute(newer, life)
        assert life.states[-1] is state
        relay.broken = None
    await commander.end(refused, None)
    assert relay.values == {"5850": True, "5851": 50}
    await commander.end(lost, None)
    assert relay.values == {"5850": True, "5851": 100} and not commander._wrote


async def test_an_older_command_that_is_tried_again_does_not_follow_a_newer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "AGAIN_S", 0.05)
    relay, commander, *_ = controlled()
    relay.deaf_to, life = 20, Life()
    executing = asyncio.create_task(commander.execute(replace(command("older"), parameters={"power_w": 200}), life))
    await until(lambda: relay.unheard > 0, 60, "the first try")
    await commander.execute(command("newer"), Life())
    relay.deaf_to = None
    await executing
    assert relay.values == {"5850": True, "5851": 50}
    assert life.states[-1] is CommandState.FAILED and "newer" in life.updates[-1].detail
    await commander.end(command("newer"), None)
    assert relay.values == {"5850": True, "5851": 100} and not commander._wrote


async def test_object_3312_is_written_when_the_window_begins() -> None:
    relay, commander, *_ = controlled()
    begins_ms = time.time_ns() // 1_000_000 + 700
    window = {"power_w": 0, "from_ms": begins_ms, "until_ms": begins_ms + 60_000}
    life = Life()
    await commander.execute(replace(command("w"), parameters=window, expires_at=begins_ms + 60_000), life)
    (sent,) = [update for update in life.updates if update.state is CommandState.SENT]
    assert sent.at >= begins_ms - 100 and relay.values == {"5850": False, "5851": 0}


def test_instants_go_on_over_a_new_registration_and_follow_a_clock_that_is_set_back() -> None:
    registrations, peer = Registrations(10, 60.0), Peer(("127.0.0.1", 1), "c", False, lambda data: None)

    def registered() -> Registration:
        return registrations.register(peer, Parameters("e"), ((3305, 0),), 1.0)

    assert [registered().instant(7200.0), registered().instant(7200.0)] == [7_200_000, 7_200_001]
    assert [registered().instant(1.0), registered().instant(1.0)] == [1_000, 1_001]
