"""The connection that keeps readings apart from the rest: bounds, signs of life, the end. Against a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import mqttium
import pytest

from flexrelay_adapters.mqtt import MqttConfig
from flexrelay_adapters.mqtt._client import DirectConnection, MqttiumConnection
from flexrelay_adapters.mqtt._publish import PublishCutter
from flexrelay_adapters.mqtt._wire import Wire

PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


def publish(number: int) -> bytes:
    body = b"\x00\x03t/a" + (number + 1).to_bytes(2, "big") + b"\x00" + b"%04d" % number
    return bytes([0x32, len(body)]) + body


class Peer:
    """The broker's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


@asynccontextmanager
async def connected(max_messages: int = 100, max_bytes: int = 10_000) -> AsyncIterator[tuple[Wire, Peer]]:
    peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.put_nowait(Peer(reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    cutter = PublishCutter(mqtt5=True, max_packet_bytes=1 << 20)
    wire = Wire(cutter, max_messages=max_messages, max_bytes=max_bytes)
    await wire.connect("127.0.0.1", server.sockets[0].getsockname()[1])
    peer = await peers.get()
    try:
        yield wire, peer
    finally:
        await wire.close()
        peer.writer.close()
        server.close()


async def test_messages_and_the_rest_go_apart() -> None:
    async with connected() as (wire, peer):
        peer.writer.write(publish(0) + PINGRESP + publish(1))
        await wire.ready()
        assert [message.payload for message in wire.take(10)] == [b"0000", b"0001"]
        assert await wire.read() == PINGRESP
        wire.send(b"abc")
        await wire.write_many([b"d", b"e"])
        assert await peer.reader.readexactly(5) == b"abcde"


@pytest.mark.parametrize("bounds", [{"max_messages": 50}, {"max_bytes": 200}])
async def test_a_full_queue_stops_the_reading_of_the_socket(bounds: dict[str, int]) -> None:
    async with connected(**bounds) as (wire, peer):
        count = 400_000  # far more than the buffers of both ends hold
        stream = b"".join([publish(number % 10_000) for number in range(count)])
        sending = asyncio.create_task(_send(peer, stream))
        await asyncio.sleep(0.5)
        assert not sending.done()
        found = 0
        async with asyncio.timeout(250):
            while found < count:
                await wire.ready()
                taken = wire.take(1000)
                assert 1 <= len(taken) <= (50 if "max_messages" in bounds else 1000)
                assert int(taken[0].payload) == found % 10_000
                found += len(taken)
                await asyncio.sleep(0)
        await sending


async def _send(peer: Peer, stream: bytes) -> None:
    for start in range(0, len(stream), 100_000):
        peer.writer.write(stream[start : start + 100_000])
        await peer.writer.drain()


async def test_while_it_is_full_the_engine_gets_signs_of_life_and_otherwise_none() -> None:
    async with connected(max_messages=2) as (wire, peer):
        await wire.write(PINGREQ)  # asked before it is full
        reading = asyncio.create_task(wire.read())
        await asyncio.sleep(0.05)
        assert not reading.done()
        peer.writer.write(b"".join(map(publish, range(3))))
        assert await asyncio.wait_for(reading, 60) == PINGRESP
        await wire.write(PINGREQ)  # asked while it is full
        assert await asyncio.wait_for(wire.read(), 60) == PINGRESP
        assert [int(message.payload) for message in wire.take(2)] == [0, 1]
        assert [int(message.payload) for message in wire.take(2)] == [2]
        await wire.write(PINGREQ)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.read(), 0.05)
        assert await peer.reader.readexactly(6) == PINGREQ * 3


async def test_the_end_wakes_everyone() -> None:
    async with connected() as (wire, peer):
        waiting = asyncio.create_task(wire.ready())
        reading = asyncio.create_task(wire.read())
        await asyncio.sleep(0)
        peer.writer.close()
        await asyncio.wait_for(waiting, 60)
        assert wire.over and wire.is_closing()
        assert await asyncio.wait_for(reading, 60) == b""
        with pytest.raises(ConnectionResetError):
            wire.send(b"x")
        with pytest.raises(ConnectionResetError):
            await wire.write(b"x")


async def test_closing_sends_what_is_left() -> None:
    async with connected() as (wire, peer):
        wire.send(b"x" * 100_000)
        await asyncio.gather(wire.close(), wire.close())
        assert len(await peer.reader.read(-1)) == 100_000
        assert wire.is_closing()


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    async with connected() as (wire, _):
        wire.send(bytes(50_000_000))
        async with asyncio.timeout(60):
            await wire.close()
        assert wire.over


async def test_another_mqttium_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mqttium.__version__.startswith("1.2."), "try the conformance tests, then tell `_client`"
    opened: list[MqttConfig] = []

    async def plain(config: MqttConfig, session: object) -> None:
        opened.append(config)

    monkeypatch.setattr(MqttiumConnection, "open", plain)
    monkeypatch.setattr(mqttium, "__version__", "9.0")
    config = MqttConfig(client_id="gw", readings=("t/{device}",))
    await DirectConnection.connect(config)
    assert opened == [config]
