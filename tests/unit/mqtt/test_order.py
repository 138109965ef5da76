"""What is published to one topic goes out in its order, whatever has to go out again."""

from __future__ import annotations

import asyncio

from support.mqtt_hand import Hand
from support.sinks import MemorySink

from flexrelay.ingest import NativeCodec
from flexrelay_adapters.mqtt import MqttAdapter, MqttConfig
from flexrelay_adapters.mqtt._client import ConnectionLost
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import running, until


class Unsteady(Hand):
    """Loses the first publication."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False

    async def publish(
        self, topic: str, payload: bytes, expiry_s: int | None, *, qos: int = 1, retain: bool = False
    ) -> None:
        if not self.lost:
            self.lost = True
            raise ConnectionLost("gone")
        await super().publish(topic, payload, expiry_s, qos=qos, retain=retain)


class Held(Hand):
    """Publishes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.free = asyncio.Event(), asyncio.Event()

    async def publish(
        self, topic: str, payload: bytes, expiry_s: int | None, *, qos: int = 1, retain: bool = False
    ) -> None:
        self.begun.set()
        await self.free.wait()
        await super().publish(topic, payload, expiry_s, qos=qos, retain=retain)


CONFIG = MqttConfig(name="field", client_id="gateway", readings=("v1/{device}/readings",), backoff_min_s=1.0)


async def test_an_older_one_that_goes_out_again_does_not_follow_a_newer_one() -> None:
    """A device that is told one value would do the older command instead of the newer one."""
    hand = Unsteady()
    adapter = MqttAdapter(CONFIG, NativeCodec(), connect=hand.open)
    async with running(adapter, MemorySink()):
        link, ends_at = adapter.link, wall_ms() + 120_000
        older = asyncio.create_task(link.publish("t/1", b"older", ends_at))
        await until(lambda: hand.lost, 60)
        newer = asyncio.create_task(link.publish("t/1", b"newer", ends_at))
        assert await link.publish("t/2", b"other", ends_at)
        assert await older and await newer
        assert [data for topic, data, _, _ in hand.published if topic == "t/1"] == [b"older", b"newer"]
        assert not await link.publish("t/1", b"late", wall_ms() - 1), "its time was over"


async def test_one_that_waits_for_an_older_one_ends_with_its_time() -> None:
    hand = Held()
    adapter = MqttAdapter(CONFIG, NativeCodec(), connect=hand.open)
    async with running(adapter, MemorySink()):
        link = adapter.link
        older = asyncio.create_task(link.publish("t/1", b"older", wall_ms() + 120_000))
        await until(hand.begun.is_set, 60)
        assert not await link.publish("t/1", b"newer", wall_ms() + 200)
        hand.free.set()
        assert await older
    assert [data for _, data, _, _ in hand.published] == [b"older"]
    await until(lambda: not link._turns, 60)
    await until(lambda: not link._turns, 60)
