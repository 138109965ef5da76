"""Commands to devices that are told no times: they come when their window begins, and something ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from support.mqtt_hand import Hand, Message

from flexrelay_adapters.sparkplug import SparkplugAdapter, SparkplugConfig
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(300)
SECTION = {
    "client_id": "c",
    "host_id": "h",
    "registers": {"power_w": {"metric": "Power", "unit": "W"}},
    "commands": {
        "set_power": {"write": {"power_w": {"metric": "Set", "unit": "kW", "revert": 0}}},
        "switch": {"write": {"on": {"metric": "On"}}},
    },
}


def message(kind: str, seq: int, **values: float) -> Message:
    payload = Payload(timestamp=1_700_000_000_000, seq=seq)
    for name, value in values.items():
        payload.metrics.add(name=name, double_value=value, datatype=10)
    return Message(f"spBv1.0/g/{kind}/n", payload.SerializeToString())


def command(name: str, parameters: Mapping[str, int], begins_in_ms: int = 0) -> Command:
    begins, lasts_ms = wall_ms() + begins_in_ms, 100_000
    window = {"from_ms": 5_000, "until_ms": 5_000 + lasts_ms}  # market time is not the wall's
    return Command(f"c-{name}", "did:x", "g/n", name, {**parameters, **window}, begins + lasts_ms, "order")


def written(hand: Hand) -> list[float]:
    payloads = [Payload.FromString(data) for topic, data, _, _ in hand.published if "/NCMD/" in topic]
    return [metric.double_value for payload in payloads for metric in payload.metrics if metric.name == "Set"]


async def test_written_when_the_window_begins_and_ended_when_it_is_over() -> None:
    hand, life = Hand(), Life()
    adapter = SparkplugAdapter(SparkplugConfig.from_section("plant", SECTION), connect=hand.open)
    async with running(adapter, RecordingSink()):
        await hand.batches.put([message("NBIRTH", 0, bdSeq=0, Set=0, Power=0)])
        order = command("set_power", {"power_w": 2_500}, begins_in_ms=700)
        executing = asyncio.create_task(adapter.execute(order, life))
        await until(lambda: bool(written(hand)), 60)
        (sent,) = [update.at for update in life.updates if update.state is CommandState.SENT]
        assert sent >= order.begins_at - 100 and written(hand) == [2.5]
        await hand.batches.put([message("NDATA", 1, Set=2.5)])
        await executing
        assert life.states[-1] is CommandState.ACKED
        assert adapter.must_end(order) and not adapter.must_end(command("switch", {"on": 0}))
        older = command("set_power", {"power_w": -1_000})
        ending = asyncio.create_task(adapter.end(order, older))
        await until(lambda: written(hand) == [2.5, -1.0], 60, "the older one to rule again")
        await hand.batches.put([message("NDATA", 2, Set=-1.0)])
        await ending
        ending = asyncio.create_task(adapter.end(older))
        await until(lambda: written(hand) == [2.5, -1.0, 0.0], 60, "the end")
        await hand.batches.put([message("NDATA", 3, Set=0.0)])
        await ending
        ending = asyncio.create_task(adapter.end(older))
        await until(lambda: len(written(hand)) == 4, 60)
        ending.cancel()  # it did not answer: it is tried again
        await asyncio.gather(ending, return_exceptions=True)
        assert adapter._pending == {}


async def test_no_end_and_no_older_command_goes_out_after_a_newer_one() -> None:
    hand, older_life, newer_life = Hand(), Life(), Life()
    adapter = SparkplugAdapter(SparkplugConfig.from_section("plant", SECTION), connect=hand.open)
    birth = [message("NBIRTH", 0, bdSeq=0, Set=0, Power=0)]
    over, older = (replace(command("set_power", {"power_w": 1_000}), command_id=each) for each in ("over", "older"))
    newer = replace(command("set_power", {"power_w": 3_000}), command_id="newer")
    async with running(adapter, RecordingSink()):
        await hand.batches.put(birth)
        first = asyncio.create_task(adapter.execute(older, older_life))
        await until(lambda: written(hand) == [1.0], 60)
        ending = asyncio.create_task(adapter.end(over))
        with pytest.raises(ConnectionError, match="newer"):  # the gateway had looked before
            await ending
        await hand.batches.put([message("NDEATH", 0, bdSeq=0)])
        await until(lambda: not list(adapter._nodes.born()), 60)
        ending = asyncio.create_task(adapter.end(older))  # it waits for the device, as does the newer one
        await until(lambda: len(adapter._pending["g/n"]) == 2, 60)
        second = asyncio.create_task(adapter.execute(newer, newer_life))
        await hand.batches.put(birth)
        await until(lambda: written(hand)[-1] == 3.0, 60)
        await hand.batches.put(birth)  # it asks for everything again
        with pytest.raises(ConnectionError):
            await ending
        await first
        await until(lambda: written(hand)[-2:] == [3.0, 3.0], 60)
        await hand.batches.put([message("NDATA", 1, Set=3.0)])
        await second
    assert older_life.states[-1] is CommandState.FAILED and newer_life.states[-1] is CommandState.ACKED
    assert older_life.updates[-1].detail == "a newer command holds the device"
