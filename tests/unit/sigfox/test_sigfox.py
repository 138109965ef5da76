"""Downlinks of the Sigfox adapter: one at a time, in the moment at which the device asks, and never too late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flexrelay_adapters._binary import BinaryCommand
from flexrelay_adapters.sigfox.codec import Acknowledgement, acknowledgement, device_of, uplink
from flexrelay_adapters.sigfox.config import SigfoxConfig
from flexrelay_adapters.sigfox.downlinks import Downlinks
from flexrelay_sdk import Command, CommandState, CommandUpdate, DecodeError
from flexrelay_sdk.testkit import Life, until

FORM = BinaryCommand.model_validate({"prefix": "01", "fields": {"power_w": {"offset": 1, "length": 2, "type": "int"}}})
NOW = 1_700_000_000_000


def command(name: str, power_w: int, device: str = "A1", kind: str = "set_power") -> Command:
    return Command(name, "did:example:d", device, kind, {"power_w": power_w}, NOW + 60_000, "o")


async def started(downlinks: Downlinks, *commands: Command) -> list[tuple[Life, asyncio.Task[None]]]:
    lives = [Life() for _ in commands]
    tasks = [asyncio.create_task(downlinks.execute(one, life)) for one, life in zip(commands, lives, strict=True)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return list(zip(lives, tasks, strict=True))


async def test_a_device_that_is_told_no_beginning_gets_it_when_the_window_begins() -> None:
    timed = FORM.model_copy(
        update={
            "fields": {**FORM.fields, "from_ms": FORM.fields["power_w"].model_copy(update={"offset": 3, "scale": 9})}
        }
    )
    window = {"power_w": 7, "from_ms": 5_000_000_000, "until_ms": 5_000_060_000}
    order = Command("a", "did:example:d", "A1", "set_power", window, NOW + 90_000, "o")
    for form, heard in ((FORM, None), (timed, bytes.fromhex("0100070005000000"))):
        clock = [NOW]
        downlinks = Downlinks({"set_power": form}, lambda clock=clock: clock[0])  # type: ignore[misc]  # a lambda's default
        ((_, task),) = await started(downlinks, order)
        assert await downlinks.take("A1") == heard
        clock[0] += 30_000
        assert await downlinks.take("A1") is not None
        task.cancel()


async def test_one_downlink_at_a_time_and_again_until_it_is_acknowledged() -> None:
    downlinks = Downlinks({"set_power": FORM}, lambda: NOW)
    (first, one), (second, two) = await started(downlinks, command("a", 100), command("b", 200))
    assert await downlinks.take("B2") is None
    assert await downlinks.take("A1") == bytes.fromhex("0100640000000000")
    assert await downlinks.take("A1") == bytes.fromhex("0100640000000000"), "given again until it is acknowledged"
    assert await downlinks.answer(Acknowledgement("A1", False, True, "5"))
    assert not await downlinks.answer(Acknowledgement("B2", True, False, "0"))
    assert await downlinks.answer(Acknowledgement("A1", True, False, "0"))
    await one
    assert first.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
    assert await downlinks.take("A1") == bytes.fromhex("0100c80000000000")
    assert await downlinks.answer(Acknowledgement("A1", False, False, "4 network"))
    await two
    assert second.states[-1] is CommandState.FAILED
    assert await downlinks.take("A1") is None
    assert not await downlinks.answer(Acknowledgement("A1", True, False, "0")), "an answer that comes too late"


async def test_what_could_not_be_kept_was_not_given() -> None:
    """An acknowledgement is of the downlink before it then."""
    downlinks = Downlinks({"set_power": FORM}, lambda: NOW)
    life, broken = Life(), True

    async def on_update(update: CommandUpdate) -> None:
        if broken and life.updates:
            raise OSError("the disk is full")
        await life(update)

    task = asyncio.create_task(downlinks.execute(command("b", 7), on_update))
    await until(lambda: bool(life.updates), 60)
    with pytest.raises(OSError, match="full"):
        await downlinks.take("A1")
    broken = False
    assert not await downlinks.answer(Acknowledgement("A1", True, False, "")) and not task.done()
    assert await downlinks.take("A1") is not None
    assert await downlinks.answer(Acknowledgement("A1", True, False, ""))
    await task
    assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]


async def test_what_cannot_be_written_or_has_expired_is_never_given() -> None:
    now = NOW
    downlinks = Downlinks({"set_power": FORM}, lambda: now)
    ((life, task),) = await started(downlinks, command("a", 10**6))
    await task
    assert life.states == [CommandState.QUEUED, CommandState.FAILED]
    ((life, task),) = await started(downlinks, command("b", 1, kind="switch"))
    await task
    assert life.states == [CommandState.QUEUED, CommandState.FAILED]
    ((life, task),) = await started(downlinks, command("c", 1))
    now = NOW + 60_000
    assert await downlinks.take("A1") is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_the_backend_does_not_write_is_refused() -> None:
    good = {"device": "1A2B", "time": 1_463_738_400, "data": "00", "seqNumber": 1}
    assert uplink(good).device == "1A2B" and not uplink(good).asks
    bad: list[Any] = [
        [], {}, {**good, "device": "xyz"}, {**good, "device": "1" * 9}, {**good, "device": 5}, {**good, "data": "0"},
        {**good, "data": 0}, {**good, "seqNumber": -1}, {**good, "seqNumber": True}, {**good, "ack": "true"},
        {**good, "time": "x"}, {**good, "data": "00" * 13}, {**good, "device": "-1"}, {**good, "device": "1_1"},
    ]  # fmt: skip
    for document in bad:
        with pytest.raises(DecodeError):
            uplink(document)
    for document in ([], {}, {"device": "1A"}, {"infoCode": 0}):
        with pytest.raises(DecodeError):
            acknowledgement(document)
    assert device_of({"device": "00001a2b"}) == "1A2B"


def test_a_command_of_nine_bytes_is_refused() -> None:
    base: dict[str, Any] = {"port": 0, "tokens_file": "t", "payload": {"fields": {"p": {"offset": 0, "length": 1}}},
            "mapping": {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}}}  # fmt: skip
    nine = {"fields": {"power_w": {"offset": 5, "length": 4}}}
    with pytest.raises(ValueError, match="9 bytes"):
        SigfoxConfig.from_section("s", {**base, "commands": {"set_power": nine}})
