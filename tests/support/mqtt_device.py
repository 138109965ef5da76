"""The other side of an adapter on a broker: a client with a session that the broker keeps, which sleeps, wakes and goes
on after an outage."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from flexrelay.demo.broker import Account, Mosquitto
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder


class MqttDevice(ABC):
    """A mixin for rigs. `user` is its client id, too; it hears what comes on the topic `hears_on`."""

    user: str
    password: str
    hears_on: str

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._client: aiomqtt.Client | None = None
        self._listening: asyncio.Task[None] | None = None

    @abstractmethod
    async def hear(self, payload: bytes, client: aiomqtt.Client) -> None:
        """Take one message that came."""

    async def tell(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1, again and again until it is taken."""
        while True:
            if self._client is not None:
                try:
                    return await self._client.publish(topic, payload, qos=1, timeout=10)
                except aiomqtt.MqttError:
                    await self.sleep()
            await self.wake()

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await self._broker.stop()
        try:
            yield
        finally:
            await self._broker.restart()

    async def sleep(self) -> None:
        client, self._client = self._client, None
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if client is not None:
            try:
                await client.__aexit__(None, None, None)
            except aiomqtt.MqttError:
                pass  # the broker was gone already

    async def wake(self) -> None:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 60
        client = aiomqtt.Client(
            "127.0.0.1",
            self._broker.port,
            identifier=self.user,
            username=self.user,
            password=self.password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            timeout=60,
        )
        await client.__aenter__()
        await client.subscribe(self.hears_on, qos=1)
        self._client = client
        self._listening = asyncio.create_task(self._listen(client))

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            await self.hear(bytes(message.payload), client)  # type: ignore[arg-type]  # bytes, as sent


Awake = TypeVar("Awake", bound=MqttDevice)


@asynccontextmanager
async def recorded(
    folder: Path, accounts: Sequence[Account], protocol: str, device_of: Callable[[Mosquitto, AckRecorder], Awake]
) -> AsyncIterator[Awake]:
    """A device, awake, on a broker of its own. What the adapter acknowledges in `protocol` is noted on its way there by
    the recorder."""
    async with mosquitto(folder / "broker", accounts) as broker:
        recorder = AckRecorder(broker.port, mqtt5=protocol == "5")
        async with recorder.running():
            device = device_of(broker, recorder)
            await device.wake()
            try:
                yield device
            finally:
                await device.sleep()
