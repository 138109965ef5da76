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


async def test_an_older_one_that_goes_out_again_does_not_follow_a_newer_one() -> None:
    """A device that is told one value would do the older command instead of the newer one."""
    hand = Unsteady()
    config = MqttConfig(name="field", client_id="gateway", readings=("v1/{device}/readings",), backoff_min_s=1.0)
    adapter = MqttAdapter(config, NativeCodec(), connect=hand.open)
    async with running(adapter, MemorySink()):
        link, ends_at = adapter.link, wall_ms() + 120_000
        older = asyncio.create_task(link.publish("t/1", b"older", ends_at))
        await until(lambda: hand.lost, 60)
        newer = asyncio.create_task(link.publish("t/1", b"newer", ends_at))
        assert await link.publish("t/2", b"other", ends_at)
        assert await older and await newer
        assert [data for _, data, _, _ in hand.published] == [b"other", b"older", b"newer"]
        left = asyncio.create_task(link.publish("t/1", b"cancelled", wall_ms() - 1))
        assert not await left, "its time was over"
    assert not link._turns
