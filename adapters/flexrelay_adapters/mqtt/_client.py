"""The one place that knows the MQTT client library: a small interface, so that another client can take its place.

What the adapter needs of a client: messages are delivered unacknowledged and stay so until `acknowledge`; nothing is
dropped; what waits is bounded in number and bytes and the bound stops the reading of the socket.
"""

import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from mqttium import MQTTError, MQTTProtocolVersion
from mqttium.api import AsyncClient, Properties
from mqttium.types import Message

from flexrelay_adapters.mqtt.config import MqttConfig

_PACKET_HEADROOM = 1024 * 1024
"""Packets beyond the payload limit still arrive, so that they can be dead-lettered instead of poisoning the session."""


class ConnectionLost(Exception):
    """The connection to the broker is gone or was refused; unacknowledged messages come again."""


class Inbound(Protocol):
    """A message that waits for its acknowledgement."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


class Connection(Protocol):
    """One connection from CONNACK to its end. Every method raises ConnectionLost when it is over."""

    async def subscribe(self, filters: Sequence[str]) -> None: ...

    async def gather(self, most: int) -> Sequence[Inbound]:
        """Wait for at least one message, then take what is waiting, up to `most`."""
        ...

    async def acknowledge(self, messages: Iterable[Inbound]) -> None: ...

    async def publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        """QoS 1; returns when the broker has it. `expiry_s` counts on MQTT 5 only."""
        ...

    async def close(self) -> None:
        """End the connection, keeping the session. Never raises."""
        ...


class MqttiumConnection:
    """`Connection` on mqttium with manual acknowledgement."""

    def __init__(self, client: AsyncClient, mqtt5: bool) -> None:
        self._client = client
        self._mqtt5 = mqtt5
        self._messages: AsyncIterator[Message] = client.messages()

    @classmethod
    async def open(cls, config: MqttConfig) -> "MqttiumConnection":
        """Connect and wait for the broker's consent. Raises ConnectionLost."""
        mqtt5 = config.protocol == "5"
        client = AsyncClient(
            config.client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
            clean_start=False,
            keepalive=config.keepalive_s,
            username=config.username,
            password=config.password.get_secret_value() if config.password is not None else None,
            connect_properties=Properties({"session_expiry_interval": config.session_expiry_s}) if mqtt5 else None,
            maximum_packet_size=config.max_payload_bytes + _PACKET_HEADROOM if mqtt5 else None,
            max_inbound_inflight=config.receive_maximum if mqtt5 else None,
            manual_ack=True,
            max_iterator_messages=config.max_pending,
            max_iterator_bytes=config.max_pending_bytes + _PACKET_HEADROOM,
            connect_timeout=config.connect_timeout_s,
        )
        try:
            await client.connect(config.host, config.port, ssl=_tls(config))
        except (MQTTError, OSError) as error:
            raise ConnectionLost(f"cannot connect to {config.host}:{config.port}: {error}") from error
        return cls(client, mqtt5)

    async def subscribe(self, filters: Sequence[str]) -> None:
        try:
            await self._client.subscribe(tuple(filters), qos=1)
        except (MQTTError, OSError) as error:
            raise ConnectionLost(f"cannot subscribe to {', '.join(filters)}: {error}") from error

    async def gather(self, most: int) -> Sequence[Inbound]:
        try:
            gathered = [await anext(self._messages)]
            for _ in range(min(most - 1, self._client.stats().delivery.iterator_queued)):
                gathered.append(await anext(self._messages))
        except StopAsyncIteration:
            raise ConnectionLost(self._why()) from None
        except (MQTTError, OSError) as error:
            raise ConnectionLost(str(error)) from error
        return gathered

    async def acknowledge(self, messages: Iterable[Inbound]) -> None:
        ack = self._client.ack
        try:
            for message in messages:
                await ack(message)  # type: ignore[arg-type]  # what gather gave out
        except (MQTTError, OSError) as error:
            raise ConnectionLost(f"acknowledgement not sent: {error}") from error

    async def publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        properties = Properties({"message_expiry_interval": expiry_s}) if self._mqtt5 else None
        try:
            receipt = await self._client.publish(topic, payload, qos=1, properties=properties)
            await receipt.wait()
        except (MQTTError, OSError) as error:
            raise ConnectionLost(f"publication to {topic} not confirmed: {error}") from error

    async def close(self) -> None:
        try:
            await self._client.disconnect()
        except (MQTTError, OSError):
            pass  # the connection is over either way

    def _why(self) -> str:
        return self._client.stats().last_disconnect_error or "the connection to the broker ended"


def _tls(config: MqttConfig) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(config.tls.ca) if config.tls.ca else None)
    if config.tls.certificate is not None:
        context.load_cert_chain(str(config.tls.certificate), str(config.tls.key))
    return context
