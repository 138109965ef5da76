"""The connection to the broker: readings go the short way, everything else to the MQTT engine.

For the engine it is a transport: what it writes is sent, what it reads is all but the messages that are taken out.
"""

import asyncio
import ssl as tls
from typing import Final, cast

from flexrelay_adapters.mqtt._publish import Publish, PublishCutter

_PINGREQ: Final = b"\xc0\x00"
_PINGRESP: Final = b"\xd0\x00"
_MAX_OTHERS: Final = 256 * 1024
"""Bytes that wait for the engine before the socket is not read any more."""
_CLOSE_S: Final = 1.0
"""How long a closing connection may take to send what is left."""
_NEXT_ADDRESS_S: Final = 0.25
"""After which the broker's next address is tried beside the first (RFC 8305)."""


class Wire(asyncio.Protocol):
    """At most `max_messages` messages wait (`max_bytes` of payload and one read of the socket beyond it); when it is
    full the socket is not read."""

    def __init__(self, cutter: PublishCutter, *, max_messages: int, max_bytes: int) -> None:
        self._cutter = cutter
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._transport: asyncio.Transport | None = None
        self._messages: list[Publish] = []
        self._bytes = 0
        self._others: list[bytes] = []
        self._others_bytes = 0
        self._full = False
        self._stopped = False
        self._ping_open = False
        """The engine has asked for a sign of life and not got it yet."""
        self._ended = False
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._error: Exception | None = None
        self._grown = asyncio.Event()
        """There are messages, or there will be none: `given_up` or the end."""
        self._readable = asyncio.Event()

    async def connect(self, host: str, port: int, *, ssl: tls.SSLContext | bool | None = None) -> "Wire":
        """Raises OSError."""
        await asyncio.get_running_loop().create_connection(
            lambda: self, host, port, ssl=ssl, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        return self

    # The messages' side.

    @property
    def over(self) -> bool:
        """Nothing comes out of `take` any more; what else there is, the engine has."""
        return self._ended or (self._cutter.given_up and not self._messages)

    async def ready(self) -> None:
        """Return when there are messages or it is `over`."""
        while not self._messages and not self.over:
            self._grown.clear()
            await self._grown.wait()

    def take(self, most: int) -> list[Publish]:
        """Up to `most` of what waits."""
        if most >= len(self._messages):
            taken, self._messages, self._bytes = self._messages, [], 0
        else:
            taken = self._messages[:most]
            del self._messages[:most]
            self._bytes -= sum([len(message.payload) for message in taken])
        if self._full:
            self._cut(b"")
        return taken

    def send(self, packets: bytes) -> None:
        """Raises ConnectionResetError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(packets)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._cut(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._ended = True
        if not self._lost.done():
            self._lost.set_result(None)
        self._grown.set()
        self._readable.set()

    # What the engine calls.

    async def read(self, n: int = 65536) -> bytes:
        """What is not taken out, at least a byte; none at the end. Raises the error that ended the connection."""
        while not self._others and not self._ended:
            self._readable.clear()
            await self._readable.wait()
        if not self._others and self._error is not None:
            raise self._error
        found, self._others, self._others_bytes = b"".join(self._others), [], 0
        self._pause_or_resume()
        return found

    async def write(self, data: bytes) -> None:
        await self.write_many([data])

    async def write_many(self, parts: list[bytes]) -> None:
        # Never waits: an acknowledgement must not come between the parts of a packet. What can be in the buffer is
        # bounded by the protocol's windows.
        if _PINGREQ in parts:
            self._ping_open = True
            self._excuse()
        self.send(b"".join(parts))

    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def close(self) -> None:
        if self._transport is None:
            return
        self._transport.close()
        try:
            await asyncio.wait({self._lost}, timeout=_CLOSE_S)
        finally:
            if not self._lost.done():
                self._transport.abort()
        await asyncio.wait({self._lost})

    def _cut(self, data: bytes) -> None:
        messages, others = self._cutter.cut(data, self._max_messages - len(self._messages))
        if messages:
            self._messages += messages
            self._bytes += sum([len(message.payload) for message in messages])
            self._grown.set()
        if others:
            if _PINGRESP in others:
                self._ping_open = False
            self._others += others
            self._others_bytes += sum([len(packet) for packet in others])
            self._readable.set()
            if self._cutter.given_up:
                self._grown.set()
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        self._full = not self._cutter.given_up and (self._cutter.stopped or self._bytes >= self._max_bytes)
        stop = self._full or self._others_bytes > _MAX_OTHERS
        if stop is not self._stopped and self._transport is not None and not self._transport.is_closing():
            self._stopped = stop
            if stop:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        self._excuse()

    def _excuse(self) -> None:
        """While the socket is not read the broker's sign of life cannot be seen: a full queue is no dead broker."""
        if self._full and self._ping_open:
            self._ping_open = False
            self._others.append(_PINGRESP)
            self._others_bytes += len(_PINGRESP)
            self._readable.set()
