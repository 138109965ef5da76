"""Single values that are over: no end of one reaches the device after a newer one, nor an older one late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mqtt_hand import Hand, Message

from flexrelay_adapters.iotagent import IotAgentAdapter, IotAgentConfig
from flexrelay_adapters.ultralight import Ultralight
from flexrelay_sdk import Command, CommandUpdate
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(300)
SECTION = {
    "codec": {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}},
    "commands": {
        "set_power": {"name": "set", "value": {"parameter": "power_w", "unit": "W", "revert": 0}},
        "switch": {"name": "relay", "value": {"parameter": "on", "revert": 1}},
    },
}
DEVICE = "key/d"


def command(name: str, power_w: int, begins_in_ms: int = 0, lasts_ms: int = 90_000) -> Command:
    window = {"power_w": power_w, "from_ms": 5_000, "until_ms": 5_000 + lasts_ms}
    return Command(name, "did:x", DEVICE, "set_power", window, wall_ms() + begins_in_ms + lasts_ms, "order")


def over_http(clock_ms: list[int], clock: Callable[[], int] = wall_ms) -> IotAgentAdapter:
    """Not running: what the device asks is asked of it here. `clock_ms`: how much later it is."""
    config = IotAgentConfig.from_section("farm", {**SECTION, "http": {"port": 0}, "apikeys": ["key"]}).at(Path())
    return IotAgentAdapter(config, Ultralight(), clock=lambda: clock() + clock_ms[0])


async def abandoned(ending: asyncio.Task[None]) -> None:
    """The gateway's patience is over."""
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)


@pytest.mark.parametrize("tried_again", [False, True])
async def test_a_device_that_asks_after_the_next_window_began_is_not_sent_back(tried_again: bool) -> None:
    later = [0]
    now_ms = wall_ms()  # the clock stands still: the newer one begins when it is put forward
    adapter, life = over_http(later, lambda: now_ms), Life()
    newer = command("b", 700, begins_in_ms=500)
    executing = asyncio.create_task(adapter.execute(newer, life))  # both of one order: it waits from the start
    await until(lambda: bool(life.updates), 60)
    ending = asyncio.create_task(adapter.end(command("a", 500, -100_000)))
    await until(lambda: len(adapter._pending[DEVICE]) == 2, 60)
    if tried_again:
        await abandoned(ending)
    later[0] = 60_000
    assert await adapter.polled(DEVICE) == b"d@set|700"
    assert await adapter.polled(DEVICE) == b"", "the end of the older one after the newer one"
    if not tried_again:
        with pytest.raises(ConnectionError, match="newer"):
            await ending
    with pytest.raises(ConnectionError, match="newer"):  # the gateway had looked before
        await adapter.end(command("a", 500, -100_000))
    await adapter.answered(DEVICE, b"d@set|done")
    await executing
    assert life.states[-1].value == "acked"
    ending = asyncio.create_task(adapter.end(newer))
    await until(lambda: bool(adapter._pending), 60)
    assert await adapter.polled(DEVICE) == b"d@set|0"
    await adapter.answered(DEVICE, b"d@set|done")
    await ending
    assert adapter._pending == {} and adapter._newest._ids == {}


async def test_an_older_one_does_not_rule_again_after_its_time() -> None:
    later = [0]
    adapter = over_http(later)
    short, long = command("s", 500, -100_000), command("l", 700, -50_000)
    ending = asyncio.create_task(adapter.end(short, long))
    await until(lambda: bool(adapter._pending), 60)
    await abandoned(ending)
    later[0] = 100_000  # the device slept over both
    assert await adapter.polled(DEVICE) == b""
    ending = asyncio.create_task(adapter.end(short, None))
    await until(lambda: len(adapter._pending.get(DEVICE, ())) == 1, 60)
    await asyncio.sleep(0)
    assert await adapter.polled(DEVICE) == b"d@set|0"
    await adapter.answered(DEVICE, b"d@set|done")
    await ending
    assert adapter._pending == {}


async def test_what_could_not_be_kept_is_given_later() -> None:
    adapter, life = over_http([0]), Life()
    broken = True

    async def on_update(update: CommandUpdate) -> None:
        if broken and life.updates:
            raise OSError("the disk is full")
        await life(update)

    executing = asyncio.create_task(adapter.execute(command("a", 500), on_update))
    await until(lambda: bool(life.updates), 60)
    with pytest.raises(OSError, match="full"):
        await adapter.polled(DEVICE)
    broken = False
    assert await adapter.polled(DEVICE) == b"d@set|500"
    await adapter.answered(DEVICE, b"d@set|done")
    await executing


async def test_of_several_that_could_not_be_kept_all_are_given_later() -> None:
    """They go in one answer, which does not go out then."""
    adapter, lives, broken = over_http([0]), {"a": Life(), "b": Life()}, True

    async def on_update(update: CommandUpdate) -> None:
        if broken and update.command_id == "b" and lives["b"].updates:
            raise OSError("the disk is full")
        await lives[update.command_id](update)

    off = Command("b", "did:x", DEVICE, "switch", {"on": 0, "from_ms": 0, "until_ms": 90_000}, wall_ms() + 90_000, "o")
    executing = []
    for each in (command("a", 500), off):
        executing.append(asyncio.create_task(adapter.execute(each, on_update)))
        await until(lambda life=lives[each.command_id]: bool(life.updates), 60)  # type: ignore[misc]  # bound now
    with pytest.raises(OSError, match="full"):
        await adapter.polled(DEVICE)
    broken = False
    assert await adapter.polled(DEVICE) == b"d@set|500#d@relay|0"
    for name in (b"set", b"relay"):
        await adapter.answered(DEVICE, b"d@" + name + b"|done")
    await asyncio.gather(*executing)


async def test_over_mqtt_an_end_that_waits_for_the_broker_does_not_follow_a_newer_one() -> None:
    hand, life = Hand(), Life()
    config = IotAgentConfig.from_section("farm", {**SECTION, "mqtt": {"client_id": "c"}}).at(Path())
    adapter = IotAgentAdapter(config, Ultralight(), connect=hand.open)
    ending = asyncio.create_task(adapter.end(command("a", 500, -100_000)))
    await until(lambda: bool(adapter._pending), 60)
    executing = asyncio.create_task(adapter.execute(command("b", 700), life))
    with pytest.raises(ConnectionError, match="newer"):
        await ending
    async with running(adapter, RecordingSink()):
        await until(lambda: bool(hand.published), 60)
        await adapter.answered(DEVICE, b"d@set|done")
        await executing
    assert [data for _, data, _, _ in hand.published] == [b"d@set|700"]
    assert life.states[-1].value == "acked"


@pytest.mark.parametrize("with_ids", [False, True])
async def test_an_answer_that_the_broker_delivers_again_is_not_the_next_commands(with_ids: bool) -> None:
    """After a kill: the older one's answer is on disk, the broker does not know; the next one waits for the broker."""
    hand, life = Hand(), Life()
    section = {
        **SECTION,
        "mqtt": {"client_id": "c"},
        **({"commands": {"set_power": {"name": "set"}}} if with_ids else {}),
    }
    adapter = IotAgentAdapter(IotAgentConfig.from_section("farm", section).at(Path()), Ultralight(), connect=hand.open)
    older, newer = f"cmd-{'0' * 24}", command(f"cmd-{'1' * 24}", 700)
    again = Message("/ul/key/d/cmdexe", f"d@set|done {older}".encode() if with_ids else b"d@set|done")
    executing = asyncio.create_task(adapter.execute(newer, life))
    await until(lambda: bool(life.updates), 60)
    await hand.batches.put([again])
    async with running(adapter, RecordingSink()):
        await until(lambda: bool(hand.published) and bool(hand.acknowledged), 60)
        if with_ids:  # and once more, when the newer one has gone out
            await hand.batches.put([again])
            await until(lambda: len(hand.acknowledged) == 2, 60)
        assert not executing.done() and adapter.stats.results == 0
        await hand.batches.put([Message("/ul/key/d/cmdexe", b"d@set|done")])
        await executing
    assert life.states[-1].value == "acked"
