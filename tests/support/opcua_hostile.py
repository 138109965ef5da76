"""OPC UA servers that lie: some answer nothing or rubbish, some stand before a real server and spoil what it says."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

HEAD = struct.Struct("<3scI")
_SEQUENCE = 16
"""Where a chunk's sequence number stands (OPC 10000-6 §6.7.2)."""
SESSION_CHUNKS = 8
"""So many chunks from the server and the session is there, or nearly."""
FLOOD = 2**16

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Spoil = Callable[[bytes, random.Random, asyncio.StreamWriter], Awaitable[None]]


def chunk(kind: bytes, body: bytes, final: bytes = b"F", size: int | None = None) -> bytes:
    return HEAD.pack(kind, final, 8 + len(body) if size is None else size) + body


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(FLOOD):
        pass


async def slamming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It closes at once."""


async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(random.randbytes(5000))
    await silent(reader, writer)


async def giant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A chunk of four gigabytes is promised, and sent as long as somebody listens."""
    writer.write(chunk(b"ACK", b"", size=2**32 - 1))
    await _pour(writer, bytes(FLOOD))


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Intermediate chunks without an end."""
    await _pour(writer, chunk(b"MSG", bytes(60_000), b"C"))


async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    text = b"x" * 4000
    writer.write(chunk(b"ERR", struct.pack("<Ii", 0x8081_0000, len(text)) + text))
    await silent(reader, writer)


async def flipping(data: bytes, chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """Bits of the body are others."""
    body = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        body[chance.randrange(24, len(body)) if len(body) > 24 else 0] ^= 1 << chance.randrange(8)
    writer.write(bytes(body))


async def hanging(data: bytes, chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """Nothing comes any more, the connection stays."""


async def torn(data: bytes, chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """Half of a chunk, and the end."""
    writer.write(data[: len(data) // 2])
    writer.close()


async def doubled(data: bytes, chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """Everything twice, as a replay is."""
    writer.write(data + data)


async def huge_array(data: bytes, chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """Some number in it is the greatest length there is."""
    at = chance.randrange(24, max(25, len(data) - 4))
    writer.write(data[:at] + struct.pack("<i", 2**31 - 1) + data[at + 4 :])


async def swelling(data: bytes, chance: random.Random, writer: asyncio.StreamWriter) -> None:
    """The answer goes on for ever, with sound headers and sequence numbers."""
    (sequence,) = struct.unpack_from("<I", data, _SEQUENCE)
    part = bytearray(data[:24] + bytes(60_000))
    struct.pack_into("<cI", part, 3, b"C", len(part))
    while True:
        struct.pack_into("<I", part, _SEQUENCE, sequence)
        sequence += 1
        writer.write(bytes(part))
        await writer.drain()


SPEAKING: dict[str, Speak] = {speak.__name__: speak for speak in (silent, slamming, rubbish, giant, endless, failing)}
SPOILING: dict[str, Spoil] = {
    spoil.__name__: spoil for spoil in (flipping, hanging, torn, doubled, huge_array, swelling)
}


async def _pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


class Hostile:
    """Servers of all kinds on ports of their own; `attacks` counts by kind what was done to whoever came."""

    def __init__(self, seed: int, real_port: int) -> None:
        self.attacks: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._real_port = real_port
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def running(cls, seed: int, real_port: int) -> AsyncIterator[Hostile]:
        hostile = cls(seed, real_port)
        try:
            yield hostile
        finally:
            for server in hostile._servers:
                server.close()
            for task in hostile._tasks:
                task.cancel()
            await asyncio.gather(*hostile._tasks, return_exceptions=True)

    async def open(self, kind: str) -> int:
        """The port of one more."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(kind, reader, writer), name=f"hostile {kind}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if kind in SPEAKING:
                self.attacks[kind] += 1
                await SPEAKING[kind](reader, writer)
            else:
                await self._spoil(kind, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever came is gone
        finally:
            writer.close()

    async def _spoil(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoil = SPOILING[kind]
        after = SESSION_CHUNKS + self._chance.randrange(12)
        real, to_real = await asyncio.open_connection("127.0.0.1", self._real_port)

        async def there() -> None:
            while data := await reader.read(FLOOD):
                to_real.write(data)

        asking = asyncio.create_task(there(), name="to the real server")
        try:
            count = 0
            while True:
                head = await real.readexactly(8)
                data = head + await real.readexactly(HEAD.unpack(head)[2] - 8)
                count += 1
                if count > after:
                    self.attacks[kind] += 1
                    await spoil(data, self._chance, writer)
                else:
                    writer.write(data)
                await writer.drain()
        finally:
            asking.cancel()
            with contextlib.suppress(OSError):
                await asyncio.gather(asking, return_exceptions=True)
            to_real.close()
