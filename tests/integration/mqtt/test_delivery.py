"""Readings from aiomqtt devices through Mosquitto into a sink, and what must hold of their acknowledgement."""

from __future__ import annotations

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
