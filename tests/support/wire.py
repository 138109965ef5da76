"""A TCP proxy on loopback whose connections break in the ways that networks have: cut, stalled, slow, truncated.

    async with Wire.to("127.0.0.1:7051") as wire:   # dial wire.address instead
        wire.cut()
        wire.mend()

What a connection carries is TLS, so a doubled piece is noticed by the other end as tampering, and ends the connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

UP, DOWN = "up", "down"
"""To the server, and from it."""
_RESET = struct.pack("ii", 1, 0)


class Wire:
    """`opened` counts the connections so far, `broken` those that a fault has ended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._truncate: dict[str, int] = {}
        self._double: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""
        self.delay_s = 0.0
        self.opened = 0
        self.broken = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, endpoint: str) -> AsyncIterator[Wire]:
        host, _, port = endpoint.rpartition(":")
        wire = cls(host, int(port))
        server = await asyncio.start_server(wire._accept, "127.0.0.1", 0)
        wire.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield wire
        finally:
            server.close()
            for task in wire._tasks:
                task.cancel()
            await asyncio.gather(*wire._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Every connection ends now, without a goodbye; new ones are taken."""
        for writer in self._writers:
            self._abort(writer)
        self.broken += len(self._writers) // 2
        self._writers.clear()

    def cut(self) -> None:
        """As `reset`, and new connections end at once until `mend`."""
        self._refuses = True
        self.reset()

    def stall(self) -> None:
        """Nothing passes until `mend`; connections stay open and new ones are taken."""
        self._flows.clear()

    def truncate(self, direction: str, after: int) -> None:
        """The connection on which the next `after` bytes in this direction are through ends there, once."""
        self._truncate[direction] = after

    def double(self, direction: str) -> None:
        """The next piece in this direction goes twice."""
        self._double.add(direction)

    def mend(self) -> None:
        """As it should be again. Connections that were ended stay so."""
        self._refuses = False
        self.delay_s = 0.0
        self._truncate.clear()
        self._double.clear()
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        if self._refuses:
            self._abort(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            self._abort(writer)
            return
        both = {writer, up_writer}
        self._writers |= both
        ends = [
            asyncio.create_task(self._pump(reader, up_writer, UP, both)),
            asyncio.create_task(self._pump(up_reader, writer, DOWN, both)),
        ]
        self._tasks.update(ends)
        for end in ends:
            end.add_done_callback(self._tasks.discard)
        await asyncio.gather(*ends, return_exceptions=True)
        self._writers -= both

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: str,
        both: set[asyncio.StreamWriter],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flows.wait()
                if direction in self._double:
                    self._double.discard(direction)
                    data += data
                left = self._truncate.get(direction)
                if left is not None and left <= len(data):
                    del self._truncate[direction]
                    writer.write(data[:left])
                    await writer.drain()
                    break
                if left is not None:
                    self._truncate[direction] = left - len(data)
                writer.write(data)
                await writer.drain()
        if self._writers >= both:
            self.broken += 1
        for each in both:
            self._writers.discard(each)
            each.close()

    @staticmethod
    def _abort(writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
