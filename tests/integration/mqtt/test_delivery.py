"""Readings from aiomqtt devices through Mosquitto into a sink, and what must hold of their acknowledgement."""

from __future__ import annotations

import asyncio

import pytest
from aiomqtt import ProtocolVersion
from support.sinks import MemorySink, until

from flexrelay.demo.broker import Mosquitto

from .conftest import config, device, reading, running

TOPIC = "flexrelay/v1/dso/meter1/readings"


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_readings_arrive_in_order_with_the_identity_of_the_topic(broker: Mosquitto, protocol: str) -> None:
    sink = MemorySink()
    version = ProtocolVersion.V5 if protocol == "5" else ProtocolVersion.V311
    async with running(config(broker, protocol=protocol), sink), device(broker, protocol=version) as meter:
        for power in range(300):
            await meter.publish(TOPIC, reading(power), qos=1)
        await until(lambda: len(sink.frames) == 300, what="300 readings")
    assert sink.payloads() == [reading(power) for power in range(300)]
    assert {(frame.protocol, frame.credential, frame.channel) for frame in sink.frames} == {("mqtt", "meter1", TOPIC)}
    assert sink.dead == []


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_readings_of_an_absent_gateway_come_when_it_is_back(broker: Mosquitto, protocol: str) -> None:
    first, second = MemorySink(), MemorySink()
    settings = config(broker, protocol=protocol)
    async with device(broker) as meter:
        async with running(settings, first):
            await meter.publish(TOPIC, reading(0), qos=1)
            await until(lambda: len(first.frames) == 1)
        for power in range(1, 50):
            await meter.publish(TOPIC, reading(power), qos=1)
        async with running(settings, second):
            await until(lambda: len(second.frames) == 49, what="what was sent meanwhile")
    assert second.payloads() == [reading(power) for power in range(1, 50)]


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_the_sink_refused_is_delivered_again(broker: Mosquitto, protocol: str) -> None:
    sink = MemorySink()
    sink.refuse = 3
    async with running(config(broker, protocol=protocol), sink) as adapter, device(broker) as meter:
        for power in range(20):
            await meter.publish(TOPIC, reading(power), qos=1)
        await until(lambda: len(set(sink.payloads())) == 20, what="all readings after the refusals")
        assert adapter.link.sink_refusals == 3
        await until(lambda: adapter.link.acknowledged >= 20)
    assert sorted(sink.payloads()) == sorted(reading(power) for power in range(20))


@pytest.mark.mosquitto
async def test_nothing_is_acknowledged_while_the_sink_has_it(broker: Mosquitto) -> None:
    sink, heir = MemorySink(), MemorySink()
    sink.open.clear()
    async with device(broker) as meter:
        async with running(config(broker), sink):
            for power in range(10):
                await meter.publish(TOPIC, reading(power), qos=1)
            await asyncio.sleep(0.3)
        async with running(config(broker), heir):
            await until(lambda: len(heir.frames) == 10, what="the unacknowledged readings")
    assert sink.frames == []


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_broker_restart_loses_nothing(broker: Mosquitto, protocol: str) -> None:
    sink = MemorySink()
    async with running(config(broker, protocol=protocol), sink) as adapter:
        async with device(broker) as meter:
            for power in range(100):
                await meter.publish(TOPIC, reading(power), qos=1)
        await broker.restart()
        async with device(broker) as meter:
            for power in range(100, 200):
                await meter.publish(TOPIC, reading(power), qos=1)
        await until(lambda: len(set(sink.payloads())) == 200, what="all readings")
        assert adapter.link.connections >= 2


@pytest.mark.mosquitto
async def test_two_gateways_share_the_readings(broker: Mosquitto) -> None:
    one, two = MemorySink(), MemorySink()
    shared = {"shared_group": "dso", "commands": None, "results": None}
    async with (
        running(config(broker, client_id="gw1", **shared), one),
        running(config(broker, client_id="gw2", **shared), two),
        device(broker) as meter,
    ):
        for power in range(200):
            await meter.publish(TOPIC, reading(power), qos=1)
        await until(lambda: len(one.frames) + len(two.frames) == 200, what="200 readings in two gateways")
    assert one.frames and two.frames
    assert sorted(one.payloads() + two.payloads()) == sorted(reading(power) for power in range(200))


@pytest.mark.mosquitto
async def test_a_device_cannot_write_where_another_writes(broker: Mosquitto) -> None:
    sink = MemorySink()
    async with running(config(broker), sink):
        async with device(broker) as meter:
            await meter.publish("flexrelay/v1/dso/meter2/readings", reading(666), qos=1)
        async with device(broker, protocol=ProtocolVersion.V311) as meter:
            await meter.publish("flexrelay/v1/dso/meter2/readings", reading(667), qos=1)
        async with device(broker) as meter:
            await meter.publish(TOPIC, reading(1), qos=1)
        await until(lambda: len(sink.frames) == 1)
    assert sink.payloads() == [reading(1)]


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_bad_messages_go_to_the_dead_letters_and_good_ones_on(broker: Mosquitto, protocol: str) -> None:
    sink = MemorySink()
    bad = {
        b"": "not_json",
        b"\xff\xfe": "not_utf8",
        b'{"p": 1': "not_json",
        b'{"p": NaN}': "not_a_number",
        b'{"p": "12"}': "not_a_number",
        b'{"q": 1}': "missing_field",
        b'{"p": 1, "p": 2}': "duplicate_name",
        b"[" * 50_000: "not_json",
        b'{"p": 1e99}': "out_of_range",
        b'{"p": 1,"x":"' + b"x" * 70_000 + b'"}': "oversized",
    }
    settings = config(broker, protocol=protocol)
    async with running(settings, sink) as adapter, device(broker) as meter:
        for power, payload in enumerate(bad):
            await meter.publish(TOPIC, reading(power), qos=1)
            await meter.publish(TOPIC, payload, qos=1)
        await until(lambda: adapter.link.acknowledged == 2 * len(bad), what="all acknowledgements")
        assert adapter.link.connections == 1
    assert {frame.payload: reason for frame, reason in sink.dead} == bad
    assert sink.payloads() == [reading(power) for power in range(len(bad))]


@pytest.mark.mosquitto
async def test_a_message_of_a_forgotten_subscription_is_dead_lettered(broker: Mosquitto) -> None:
    old, new = MemorySink(), MemorySink()
    async with running(config(broker, readings=("flexrelay/v1/dso/{device}/readings",)), old):
        pass
    async with running(config(broker, readings=("flexrelay/v2/dso/{device}/readings",)), new), device(broker) as meter:
        await meter.publish(TOPIC, reading(1), qos=1)
        await until(lambda: len(new.dead) == 1, what="the dead letter")
    frame, reason = new.dead[0]
    assert (frame.credential, frame.channel, reason) == ("", TOPIC, "topic_not_expected")


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_slow_sink_holds_the_broker_back_not_memory(broker: Mosquitto, protocol: str) -> None:
    sink = MemorySink()
    sink.open.clear()
    padding = b'{"p": %d, "x": "' + b"x" * 20_000 + b'"}'
    settings = config(broker, protocol=protocol, max_pending=100, max_pending_bytes=2**18, max_payload_bytes=2**16)
    async with running(settings, sink) as adapter, device(broker, max_inflight_messages=100) as meter:
        for power in range(600):
            await meter.publish(TOPIC, padding % power, qos=1)
        await asyncio.sleep(0.5)
        held = adapter.link._connection._client.stats()  # type: ignore[union-attr]  # what no port shows
        assert held.delivery.iterator_bytes <= 2**18 + 2**20
        assert adapter.stats.frames == 0
        sink.open.set()
        await until(lambda: len(sink.frames) == 600, what="all readings")
    assert [frame.payload for frame in sink.frames] == [padding % power for power in range(600)]
    assert max(sink.batches) <= 100
