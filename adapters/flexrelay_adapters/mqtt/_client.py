"""The one place that knows the MQTT client library: a small interface, so that another client can take its place.

What the adapter needs of a client: messages are delivered unacknowledged and stay so until `acknowledge`; nothing is
dropped; what waits is bounded in number and bytes and the bound stops the reading of the socket.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Protocol, Self

import mqttium
from mqttium import MQTTError, MQTTProtocolVersion
from mqttium.api import AsyncClient, Properties, PublishMessage
from mqttium.errors import ConnectRefusedError
from mqttium.types import Message

from flexrelay_adapters.mqtt._publish import Publish, PublishCutter, puback
from flexrelay_adapters.mqtt._wire import Wire
from flexrelay_adapters.mqtt.config import BrokerConfig

log = logging.getLogger(__name__)

_LOGIN: Final = "check `username`, the password and what the broker lets this user do"
_REFUSALS: Final = {
    1: "it does not speak this version: set `protocol`",
    2: "it does not take this `client_id`",
    3: "it takes nobody now",
    4: _LOGIN,
    5: _LOGIN,
    132: "it does not speak this version: set `protocol`",
    133: "it does not take this `client_id`",
    134: _LOGIN,
    135: _LOGIN,
    136: "it takes nobody now",
    137: "it is busy",
    138: "it has banned this client",
}
"""By the code of MQTT 3.1.1 (below 6) or MQTT 5."""

_PACKET_HEADROOM = 1024 * 1024
"""Packets beyond the payload limit still arrive, so that they can be dead-lettered instead of poisoning the session."""
_MAX_PACKET: Final = 268_435_460
"""The largest packet that MQTT can encode."""
_SEAM: Final = "1.2."
"""The mqttium versions whose `_transport_factory` (private) has been tried with `DirectConnection`."""


class ConnectionLost(Exception):
    """The connection to the broker is gone or was refused; unacknowledged messages come again."""


class Session(NamedTuple):
    """What a protocol upon MQTT may ask of its session beyond the configuration: a will (topic, payload; QoS 1,
    retained), and that the broker keeps nothing when the connection ends (`clean`)."""

    will: tuple[str, bytes] | None = None
    clean: bool = False


KEPT: Final = Session()
"""The session goes on when the connection ends."""


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

    async def acknowledge(self, messages: Sequence[Inbound]) -> None:
        """Tell the broker that these are done with, in the order in which `gather` gave them out."""
        ...

    async def publish(
        self, topic: str, payload: bytes, expiry_s: int | None, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Returns when the broker has it (with QoS 0: when it is sent). `expiry_s` counts on MQTT 5 only."""
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
    async def open(cls, config: BrokerConfig, session: Session = KEPT) -> Self:
        """Connect and wait for the broker's consent. Raises ConnectionLost."""
        client = _client(config, session)
        await _connect(client, config)
        return cls(client, config.protocol == "5")

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

    async def acknowledge(self, messages: Sequence[Inbound]) -> None:
        ack = self._client.ack
        try:
            for message in messages:
                await ack(message)  # type: ignore[arg-type]  # what gather gave out
        except (MQTTError, OSError) as error:
            raise ConnectionLost(f"acknowledgement not sent: {error}") from error

    async def publish(
        self, topic: str, payload: bytes, expiry_s: int | None, *, qos: int = 1, retain: bool = False
    ) -> None:
        expires = self._mqtt5 and expiry_s is not None
        properties = Properties({"message_expiry_interval": expiry_s}) if expires else None
        try:
            receipt = await self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
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


class DirectConnection(MqttiumConnection):
    """The same, but readings do not pass through mqttium's engine: it leads the connection and sees all other packets.

    Its way of a message (decoded, kept as session state, queued, iterated, acknowledged under a lock) takes 20 µs, this
    one 2. Something unusual on the wire switches back to mqttium's way for the rest of the connection.
    """

    def __init__(self, client: AsyncClient, mqtt5: bool, wire: Wire) -> None:
        super().__init__(client, mqtt5)
        self._wire = wire

    @classmethod
    async def connect(cls, config: BrokerConfig, session: Session = KEPT) -> MqttiumConnection:
        """`open`, or `MqttiumConnection.open` when this mqttium is not known. Raises ConnectionLost."""
        if not mqttium.__version__.startswith(_SEAM):
            log.warning("mqttium %s is not known here: readings take twice the time", mqttium.__version__)
            return await MqttiumConnection.open(config, session)
        mqtt5 = config.protocol == "5"
        most = config.max_payload_bytes + _PACKET_HEADROOM if mqtt5 else _MAX_PACKET
        wire = Wire(
            PublishCutter(mqtt5=mqtt5, max_packet_bytes=most),
            max_messages=config.max_pending,
            max_bytes=config.max_pending_bytes,
        )
        client = _client(config, session)
        client._transport_factory = wire.connect
        await _connect(client, config)
        return cls(client, mqtt5, wire)

    async def gather(self, most: int) -> Sequence[Inbound]:
        await self._wire.ready()
        return await super().gather(most) if self._wire.over else self._wire.take(most)

    async def acknowledge(self, messages: Sequence[Inbound]) -> None:
        packet_ids = [message.packet_id for message in messages if type(message) is Publish and message.packet_id]
        if packet_ids:
            try:
                self._wire.send(puback(packet_ids))
            except OSError as error:
                raise ConnectionLost(f"acknowledgement not sent: {error}") from error
        if len(packet_ids) < len(messages):  # mqttium's come later than all others, so the order is kept
            await super().acknowledge([message for message in messages if type(message) is not Publish])


def _client(config: BrokerConfig, session: Session) -> AsyncClient:
    mqtt5 = config.protocol == "5"
    expiry_s = 0 if session.clean else config.session_expiry_s
    return AsyncClient(
        config.client_id,
        protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
        clean_start=session.clean,
        will=PublishMessage(*session.will, qos=1, retain=True) if session.will is not None else None,
        keepalive=config.keepalive_s,
        username=config.username,
        password=config.password.get_secret_value() if config.password is not None else None,
        connect_properties=Properties({"session_expiry_interval": expiry_s}) if mqtt5 else None,
        maximum_packet_size=config.max_payload_bytes + _PACKET_HEADROOM if mqtt5 else None,
        max_inbound_inflight=config.receive_maximum if mqtt5 else None,
        manual_ack=True,
        max_iterator_messages=config.max_pending,
        max_iterator_bytes=config.max_pending_bytes + _PACKET_HEADROOM,
        connect_timeout=config.connect_timeout_s,
    )


async def _connect(client: AsyncClient, config: BrokerConfig) -> None:
    try:
        await client.connect(config.host, config.port, ssl=_tls(config))
    except ConnectRefusedError as error:
        known = _REFUSALS.get(error.reason_code, "see the broker's log")
        text = f"{config.host}:{config.port} refuses the connection (code {error.reason_code}): {known}"
        raise ConnectionLost(text) from error
    except (MQTTError, OSError) as error:
        raise ConnectionLost(f"cannot connect to {config.host}:{config.port}: {error}") from error


def _tls(config: BrokerConfig) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(config.tls.ca) if config.tls.ca else None)
    if config.tls.certificate is not None:
        context.load_cert_chain(str(config.tls.certificate), str(config.tls.key))
    return context
