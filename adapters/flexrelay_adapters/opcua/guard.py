"""What a server may send at once (OPC 10000-6 §7.1.2): chunks and messages of a bounded size, whole chunks only.

The library buffers whatever a chunk's header promises, copying all of it with every packet, and counts no message's
chunks: one server that lies about sizes would cost the memory and the time of all.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Final

MAX_CHUNK_BYTES: Final = 2**20
"""We announce 65,535; servers that send somewhat more are borne."""
BEFORE_SESSION_BYTES: Final = 2**20
"""The greatest message until the session is there: the library decodes those, and slowly."""
_HEAD: Final = struct.Struct("<3sBI")
_INTERMEDIATE: Final = ord("C")


class Guard(asyncio.Protocol):
    """Stands before the library's protocol. `limit` is the greatest message that is taken; beyond it the connection is
    broken off, and `broken` says why."""

    def __init__(self, inner: asyncio.Protocol, limit: int, broken: Callable[[str], None]) -> None:
        self.limit = limit
        self._inner = inner
        self._broken = broken
        self._transport: asyncio.BaseTransport | None = None
        self._buffer = bytearray()
        self._message = 0
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._buffer.clear()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        held = self._buffer
        if held:
            held += data
            end = self._whole(held)
            if end:
                data = bytes(held[:end])
                del held[:end]
                self._inner.data_received(data)
            return
        end = self._whole(data)
        held += data[end:]
        if end:
            self._inner.data_received(data if end == len(data) else data[:end])

    def _whole(self, data: bytes | bytearray) -> int:
        """Where the last whole chunk ends, 0 when nothing may be passed on."""
        end, most = 0, len(data) - _HEAD.size
        while end <= most:
            kind, final, size = _HEAD.unpack_from(data, end)
            if not _HEAD.size <= size <= MAX_CHUNK_BYTES:
                return self._break(f"a chunk of {size} bytes ({kind!r}), at most {MAX_CHUNK_BYTES} are taken")
            if end + size > len(data):
                break
            self._message += size
            if self._message > self.limit:
                return self._break(f"a message of more than {self.limit} bytes")
            if final != _INTERMEDIATE:
                self._message = 0
            end += size
        return end

    def _break(self, why: str) -> int:
        self._ended = True
        self._buffer = bytearray()
        self._broken(why)
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()
        return 0
