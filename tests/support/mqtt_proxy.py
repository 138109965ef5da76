"""A TCP proxy between a gateway and its broker that notes, outside the gateway, which deliveries were acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

PUBLISH, PUBACK = 3, 4


class AckRecorder:
    """`acknowledged` counts the payloads whose PUBACK has left the gateway; `delivered` those that went to it."""

    def __init__(self, broker_port: int, *, mqtt5: bool = True) -> None:
        self.port = 0
        self.delivered: Counter[bytes] = Counter()
        self.acknowledged: Counter[bytes] = Counter()
        self.foreign = 0
        """Acknowledgements of packet identifiers that were not delivered on that connection: a protocol error."""
        self.connections = 0
        self._broker_port = broker_port
        self._mqtt5 = mqtt5
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[AckRecorder]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return when no connection is open any more: what a killed gateway had sent has been read."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        waiting: dict[int, bytes] = {}

        def to_gateway(kind: int, flags: int, body: memoryview) -> None:
            if kind == PUBLISH and flags & 0b0110:
                packet_id, payload = _publish(body, self._mqtt5)
                waiting[packet_id] = payload
                self.delivered[payload] += 1

        def to_broker(kind: int, _: int, body: memoryview) -> None:
            if kind == PUBACK:
                payload = waiting.pop(int.from_bytes(body[:2], "big"), None)
                if payload is None:
                    self.foreign += 1
                else:
                    self.acknowledged[payload] += 1

        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            writer.close()
            return
        ends = [
            asyncio.create_task(_pump(up_reader, writer, to_gateway)),
            asyncio.create_task(_pump(reader, up_writer, to_broker)),
        ]
        self._tasks.update(ends)
        for end in ends:
            end.add_done_callback(self._tasks.discard)
        await asyncio.gather(*ends, return_exceptions=True)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[int, int, memoryview], None]
) -> None:
    buffer = bytearray()
    try:
        while data := await reader.read(65536):
            buffer += data
            del buffer[: _packets(buffer, see)]
            writer.write(data)
            with contextlib.suppress(ConnectionError):  # the other end is gone; what this one still says counts
                await writer.drain()
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()


def _packets(buffer: bytearray, see: Callable[[int, int, memoryview], None]) -> int:
    """Show every complete packet; the number of bytes that they take."""
    at = 0
    view = memoryview(bytes(buffer))
    while at + 1 < len(view):
        length, shift, start = 0, 0, at + 1
        while True:
            if start >= len(view):
                return at
            byte = view[start]
            start += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if start + length > len(view):
            return at
        see(view[at] >> 4, view[at] & 15, view[start : start + length])
        at = start + length
    return at


def _publish(body: memoryview, mqtt5: bool) -> tuple[int, bytes]:
    at = 2 + int.from_bytes(body[:2], "big")
    packet_id = int.from_bytes(body[at : at + 2], "big")
    at += 2
    if mqtt5:
        length, shift = 0, 0
        while True:
            byte = body[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        at += length
    return packet_id, bytes(body[at:])
