"""The adapter on a connection that a test holds in its hands."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support.mqtt_hand import Hand, Message
from support.sinks import MemorySink, until

from flexrelay_adapters.mqtt import JsonMapping, MappingCodec, MqttAdapter, MqttConfig
from flexrelay_adapters.mqtt._client import ConnectionLost

REGISTERS = {"power_w": {"pointer": "/p", "unit": "W"}}


def adapter(hand: Hand, clock: list[int], **mapping: Any) -> MqttAdapter:
    codec = JsonMapping.model_validate({"registers": REGISTERS, **mapping})
    config = MqttConfig.model_validate(
        {
            "client_id": "gw",
            "readings": ("r/{device}",),
            "codec": codec.model_dump(),
            "backoff_min_s": 0.01,
            "backoff_max_s": 0.02,
        }
    )
    return MqttAdapter(config, MappingCodec(codec), connect=hand.open, clock=lambda: clock[0])


async def test_readings_that_get_their_reception_as_instant_get_one_each() -> None:
    hand, sink, clock = Hand(), MemorySink(), [1000]
    running = asyncio.create_task(adapter(hand, clock).run(sink))
    for batch in ([("a", 1), ("a", 2), ("b", 3), ("a", 4)], [("a", 5), ("b", 6)]):
        hand.batches.put_nowait([Message(f"r/{name}", b'{"p": %d}' % value) for name, value in batch])
    await until(lambda: len(sink.frames) == 6)
    clock[0] = 2000
    hand.batches.put_nowait([Message("r/a", b'{"p": 7}')])
    await until(lambda: len(hand.acknowledged) == 7)
    running.cancel()
    found = [(frame.credential, frame.received_at) for frame in sink.frames]
    assert found == [("a", 1000), ("a", 1001), ("b", 1000), ("a", 1002), ("a", 1003), ("b", 1001), ("a", 2000)]


async def test_a_clock_that_is_set_back_gives_the_time_that_it_shows() -> None:
    """A gateway may not know the time when it starts; the readings that follow must not lie ahead of it."""
    hand, sink, clock = Hand(), MemorySink(), [7_200_000]
    running = asyncio.create_task(adapter(hand, clock).run(sink))
    hand.batches.put_nowait([Message("r/a", b'{"p": 1}')])
    await until(lambda: len(hand.acknowledged) == 1)
    clock[0] = 1000
    hand.batches.put_nowait([Message("r/a", b'{"p": 2}'), Message("r/a", b'{"p": 3}')])
    await until(lambda: len(hand.acknowledged) == 3)
    running.cancel()
    assert [frame.received_at for frame in sink.frames] == [7_200_000, 1000, 1001]


async def test_readings_with_an_instant_of_their_own_keep_the_true_reception() -> None:
    hand, sink = Hand(), MemorySink()
    made = adapter(hand, [1000], observed_at={"pointer": "/t", "form": "ms"})
    running = asyncio.create_task(made.run(sink))
    hand.batches.put_nowait([Message("r/a", b'{"p": 1, "t": %d}' % at) for at in (1, 2)])
    await until(lambda: len(hand.acknowledged) == 2)
    running.cancel()
    assert [frame.received_at for frame in sink.frames] == [1000, 1000]


async def test_a_cancelled_adapter_acknowledges_nothing_that_the_sink_has_not_returned() -> None:
    hand, sink = Hand(), MemorySink()
    sink.open.clear()
    running = asyncio.create_task(adapter(hand, [1000]).run(sink))
    hand.batches.put_nowait([Message("r/a", b"{}")])
    await until(hand.batches.empty)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert hand.acknowledged == []
    assert hand.closed == 1


async def test_every_refusal_and_loss_closes_its_connection_and_waits_longer() -> None:
    hand, sink = Hand(), MemorySink()
    sink.refuse = 5
    for _ in range(5):
        hand.batches.put_nowait([Message("r/a", b'{"p": 1}')])
    made = adapter(hand, [1000])
    running = asyncio.create_task(made.run(sink))
    await until(lambda: hand.closed == 5)
    assert made.link.sink_refusals == 5
    assert hand.acknowledged == []
    assert made.link._failures == 5
    hand.batches.put_nowait([Message("r/a", b'{"p": 1}')])
    await until(lambda: len(hand.acknowledged) == 1)
    assert made.link._failures == 0
    assert "(" not in made.endpoint, "what is over is not told any more"
    running.cancel()


async def test_a_refused_subscription_ends_the_connection() -> None:
    class Refusing(Hand):
        async def subscribe(self, filters: Sequence[str]) -> None:
            raise ConnectionLost("not authorised")

    hand = Refusing()
    made = adapter(hand, [1000])
    running = asyncio.create_task(made.run(MemorySink()))
    await until(lambda: hand.closed >= 3)
    assert not made.connected
    assert made.endpoint.endswith(" (not authorised)"), "who looks at readiness is told why"
    running.cancel()
