"""What the MQTT adapter needs of a client library, against a real broker: another client is one more parameter.

`Connection` is private to the adapter; these tests are what an implementation of it must pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from support.mosquitto import mosquitto

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay_adapters.mqtt import MqttConfig
from flexrelay_adapters.mqtt._client import Connection, ConnectionLost, DirectConnection, Inbound, MqttiumConnection

Open = Callable[[MqttConfig], Awaitable[Connection]]
ACCOUNTS = (
    Account("gw", "secret", read=("t/#",), write=("t/#",)),
    Account("dev", "secret", read=("t/#",), write=("t/#",)),
)

pytestmark = pytest.mark.mosquitto


@pytest.fixture(params=[DirectConnection.connect, MqttiumConnection.open], ids=["direct", "mqttium"])
def opening(request: pytest.FixtureRequest) -> Open:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["5", "3.1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as running:
        yield running


def config(broker: Mosquitto, protocol: str, **changes: object) -> MqttConfig:
    values = {"client_id": "gw", "username": "gw", "password": "secret", "readings": ("t/{device}",), **changes}
    return MqttConfig.model_validate({"port": broker.port, "protocol": protocol, "connect_timeout_s": 5, **values})


@asynccontextmanager
async def connected(opening: Open, settings: MqttConfig) -> AsyncIterator[Connection]:
    connection = await opening(settings)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def device(broker: Mosquitto) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client(broker.host, broker.port, username="dev", password="secret") as client:
        yield client


@asynccontextmanager
async def session_of(broker: Mosquitto) -> AsyncIterator[aiomqtt.Client]:
    """The gateway's session in other hands."""
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    async with aiomqtt.Client(
        broker.host,
        broker.port,
        identifier="gw",
        username="gw",
        password="secret",
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        properties=properties,
    ) as client:
        yield client


async def take(connection: Connection, count: int, most: int = 1000) -> list[Inbound]:
    taken: list[Inbound] = []
    async with asyncio.timeout(60):
        while len(taken) < count:
            gathered = await connection.gather(most)
            assert 1 <= len(gathered) <= most
            taken += gathered
    return taken


def numbers(messages: list[Inbound]) -> list[int]:
    return [int(message.payload) for message in messages]


async def test_what_is_not_acknowledged_comes_again_and_what_is_does_not(
    broker: Mosquitto, opening: Open, protocol: str
) -> None:
    settings = config(broker, protocol)
    async with connected(opening, settings) as connection, device(broker) as sender:
        await connection.subscribe(["t/+"])
        for number in range(10):
            await sender.publish("t/a", b"%d" % number, qos=1)
        taken = await take(connection, 10)
        assert numbers(taken) == list(range(10)) and {message.topic for message in taken} == {"t/a"}
        await connection.acknowledge(taken[:4])
        await asyncio.sleep(0.2)
    async with connected(opening, settings) as connection:
        assert numbers(await take(connection, 6)) == list(range(4, 10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.gather(10), 0.3)


async def test_gather_takes_what_waits_up_to_the_limit(broker: Mosquitto, opening: Open, protocol: str) -> None:
    async with connected(opening, config(broker, protocol)) as connection, device(broker) as sender:
        await connection.subscribe(["t/+"])
        for number in range(30):
            await sender.publish("t/a", b"%d" % number, qos=1)
        await asyncio.sleep(1.0)
        assert [len(await connection.gather(most)) for most in (12, 1, 100)] == [12, 1, 17]


async def test_a_full_queue_waits_and_drops_nothing(broker: Mosquitto, opening: Open, protocol: str) -> None:
    settings = config(broker, protocol, max_pending=20)
    async with connected(opening, settings) as connection, device(broker) as sender:
        await connection.subscribe(["t/+"])
        for number in range(500):
            await sender.publish("t/a", b"%d" % number, qos=1)
        taken: list[Inbound] = []
        async with asyncio.timeout(60):
            while len(taken) < 500:
                gathered = await connection.gather(1000)
                assert len(gathered) <= 20
                taken += gathered
                await connection.acknowledge(gathered)
    assert numbers(taken) == list(range(500))


async def test_everything_that_a_device_may_publish_arrives(broker: Mosquitto, opening: Open, protocol: str) -> None:
    """QoS 0 and 1, empty and large payloads, properties, and a retained message from before."""
    settings = config(broker, protocol, max_payload_bytes=2_000_000)
    large = bytes(range(256)) * 4_000
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("name", "value" * 40)]
    properties.MessageExpiryInterval = 60
    async with aiomqtt.Client(
        broker.host, broker.port, username="dev", password="secret", protocol=aiomqtt.ProtocolVersion.V5
    ) as sender:
        await sender.publish("t/kept", b"retained", qos=1, retain=True)
        async with connected(opening, settings) as connection:
            await connection.subscribe(["t/+"])
            kept = await take(connection, 1)
            assert [(m.topic, m.payload) for m in kept] == [("t/kept", b"retained")]
            sent = [b"", b"small", large, b"last"]
            for qos in (0, 1):
                for payload in sent:
                    await sender.publish("t/ä", payload, qos=qos, properties=properties)
            taken = await take(connection, 8)
            assert [m.payload for m in taken] == [*sent, *sent] and {m.topic for m in taken} == {"t/ä"}
            await connection.acknowledge(kept + taken)
            await asyncio.sleep(0.2)
    async with connected(opening, settings) as connection:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.gather(10), 0.3)


async def test_what_an_older_session_left_with_qos_2_is_taken_too(
    broker: Mosquitto, opening: Open, protocol: str
) -> None:
    async with session_of(broker) as old:
        await old.subscribe("t/+", qos=2)
    async with device(broker) as sender:
        for number in range(30):
            await sender.publish("t/a", b"%d" % number, qos=2 if number % 3 == 1 else 1)
    settings = config(broker, protocol)
    async with connected(opening, settings) as connection:
        taken = await take(connection, 30)
        assert numbers(taken) == list(range(30))
        await connection.acknowledge(taken)
        await asyncio.sleep(0.3)
    async with connected(opening, settings) as connection:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.gather(10), 0.3)


async def test_publish_returns_when_the_broker_has_it(broker: Mosquitto, opening: Open, protocol: str) -> None:
    async with connected(opening, config(broker, protocol)) as connection, device(broker) as receiver:
        await receiver.subscribe("t/out", qos=1)
        await connection.publish("t/out", b"x", 5)
        message = await asyncio.wait_for(anext(aiter(receiver.messages)), 60)
        assert (message.payload, message.qos, message.retain) == (b"x", 1, False)


async def test_the_end_of_the_broker_is_told_everywhere(broker: Mosquitto, opening: Open, protocol: str) -> None:
    settings = config(broker, protocol)
    connection = await opening(settings)
    await connection.subscribe(["t/+"])
    async with device(broker) as sender:
        await sender.publish("t/a", b"1", qos=1)
        taken = await take(connection, 1)
    waiting = asyncio.create_task(connection.gather(10))  # type: ignore[arg-type]  # a coroutine in every implementation
    await asyncio.sleep(0)
    await broker.stop()
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(waiting, 60)
    with pytest.raises(ConnectionLost):
        await connection.acknowledge(taken)
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(connection.publish("t/a", b"2", 5), 60)
    await connection.close()
    await connection.close()
    with pytest.raises(ConnectionLost, match="cannot connect"):
        await opening(settings)


async def test_refusals_of_the_broker_are_told(broker: Mosquitto, opening: Open, protocol: str) -> None:
    with pytest.raises(ConnectionLost, match=r"refuses the connection .*check `username`"):
        await opening(config(broker, protocol, password="wrong"))
    async with connected(opening, config(broker, protocol)) as connection:
        with pytest.raises(ConnectionLost):
            await connection.subscribe(["t/#/bad"])
