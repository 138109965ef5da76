"""The broker of machines without Mosquitto: same accounts, same topics, MQTT 3.1.1."""

from __future__ import annotations

from pathlib import Path

import aiomqtt
import pytest
from support.sinks import MemorySink, until

from flexrelay.demo.broker import start_broker

from .conftest import ACCOUNTS, config, device, reading, running


async def test_readings_accounts_and_topics(tmp_path: Path) -> None:
    v311 = aiomqtt.ProtocolVersion.V311
    async with start_broker(tmp_path, ACCOUNTS, embedded=True) as broker:
        assert broker.kind.startswith("amqtt") and not broker.mqtt5
        sink = MemorySink()
        async with running(config(broker, protocol="3.1.1"), sink), device(broker, protocol=v311) as meter:
            await meter.publish("flexrelay/v1/dso/meter2/readings", reading(666), qos=1)
            for power in range(50):
                await meter.publish("flexrelay/v1/dso/meter1/readings", reading(power), qos=1)
            await until(lambda: len(sink.frames) >= 50, what="50 readings")
        assert sink.payloads() == [reading(power) for power in range(50)]
        for changes in ({"password": "wrong"}, {"username": "nobody"}, {"username": None, "password": None}):
            with pytest.raises(aiomqtt.MqttError):
                async with device(broker, protocol=v311, timeout=3, **changes):
                    pass


async def test_the_broker_says_which_one_it_is(tmp_path: Path) -> None:
    async with start_broker(tmp_path, ACCOUNTS) as broker:
        assert broker.kind.split()[0] in ("mosquitto", "amqtt")
        assert broker.kind.split()[1][0].isdigit()
