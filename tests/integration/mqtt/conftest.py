"""A broker, two devices and a gateway account for every test here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from support.mosquitto import mosquitto
from support.sinks import MemorySink

from flexrelay.demo.broker import Mosquitto, device_account, gateway_account
from flexrelay_adapters.mqtt import JsonMapping, MappingCodec, MqttAdapter, MqttConfig

MAPPING = JsonMapping.model_validate({"registers": {"power_w": {"pointer": "/p", "unit": "W"}}})

ACCOUNTS = (
    device_account("meter1", "secret-1"),
    device_account("meter2", "secret-2"),
    gateway_account("dso", "gateway-dso", "secret-g"),
)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as running:
        yield running


@pytest.fixture
def unused_broker(tmp_path: Path) -> Mosquitto:
    """An address where nothing runs."""
    return Mosquitto(tmp_path, ACCOUNTS, program="mosquitto")


def config(broker: Mosquitto, **changes: Any) -> MqttConfig:
    values: dict[str, Any] = {
        "host": broker.host,
        "port": broker.port,
        "client_id": "gw",
        "username": "gateway-dso",
        "password": "secret-g",
        "readings": ("flexrelay/v1/dso/{device}/readings",),
        "commands": "flexrelay/v1/dso/{device}/commands",
        "results": "flexrelay/v1/dso/{device}/results",
        "codec": MAPPING.model_dump(),
        "backoff_min_s": 0.05,
        "backoff_max_s": 0.4,
        **changes,
    }
    return MqttConfig.model_validate(values)


@asynccontextmanager
async def running(settings: MqttConfig, sink: MemorySink) -> AsyncIterator[MqttAdapter]:
    """An adapter that is connected and subscribed; cancelled at the end."""
    adapter = MqttAdapter(settings, MappingCodec(MAPPING))
    adapter.validate()
    task = asyncio.create_task(adapter.run(sink))
    try:
        async with asyncio.timeout(60):
            await asyncio.wait(
                {task, waiting := asyncio.ensure_future(adapter.wait_connected())}, return_when="FIRST_COMPLETED"
            )
            waiting.cancel()
        if task.done():
            task.result()
        yield adapter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def device(broker: Mosquitto, name: str = "meter1", **changes: Any) -> aiomqtt.Client:
    """An independent MQTT implementation on the device's side."""
    values: dict[str, Any] = {
        "port": broker.port,
        "username": name,
        "password": "secret-" + name[-1],
        "identifier": name,
        "protocol": aiomqtt.ProtocolVersion.V5,
        "timeout": 60,
        **changes,
    }
    return aiomqtt.Client(broker.host, **values)


def reading(power_w: int) -> bytes:
    return b'{"p": %d}' % power_w
