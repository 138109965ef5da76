"""The calling side of gRPC over HTTP/2 (RFC 9113) for unary calls: one connection, many calls at once.

gRPC's own asyncio client takes several times the CPU for a small call. Header blocks are packed and read by the `hpack`
library; those that repeat, which are nearly all, are remembered.
"""

import asyncio
import base64
import binascii
import struct
import urllib.parse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from flexrelay.ledger.fabric.pings import PINGS, Pings, Pulse

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _PRIORITISED = 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME = 1, 2, 3, 4, 5
_CANCEL: Final = 8
_FIRST_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = (1 << 31) - 1
_REPLENISH: Final = 1 << 28
_OUR_FRAME: Final = 1 << 20
_FRAMES: Final = (1 << 14, (1 << 24) - 1)
_HEADER_BYTES: Final = 1 << 18
_LAST_STREAM: Final = (1 << 31) - 3
_REMEMBERED: Final = 256
SILENT: Final = "the peer hangs and answers no ping"
_FRAME: Final = struct.Struct(">BHBBI")

_Code = grpc.StatusCode
_REFUSED: Final = 7
_RESETS: Final = {8: _Code.CANCELLED, 11: _Code.RESOURCE_EXHAUSTED}
_CODES: Final = {str(code.value[0]): code for code in _Code}


class CallFailed(Exception):
    """A call that has no good answer: gRPC's code, message, and the trailer with details (empty without one)."""

    def __init__(self, code: grpc.StatusCode, message: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Silent(CallFailed):
    """The server answers nothing any more, not even a ping: what it did with the call is not known."""

    def __init__(self, seconds: float) -> None:
        super().__init__(_Code.UNAVAILABLE, f"{SILENT}: nothing came from it for {seconds:.0f} s")


class NotTaken(CallFailed):
    """The connection took no further call: the server has not seen this one."""

    def __init__(self) -> None:
        super().__init__(_Code.UNAVAILABLE, "failed to connect to all addresses: the connection is closing")


class _Broken(Exception):
    """The other side does not speak HTTP/2 as it should."""


@dataclass(slots=True)
class _Call:
    done: asyncio.Future[bytes]
    window: int
    body: bytearray = field(default_factory=bytearray)
    waiting: memoryview | None = None
    """What the window has no room for."""


class Connection(asyncio.Protocol):
    """`ready` is done when the server has said hello, with an exception when it went before. `gone` is called when no
    new call may be made here any more."""

    def __init__(
        self,
        authority: str,
        secure: bool,
        max_message_bytes: int,
        gone: Callable[["Connection"], None],
        pings: Pings = PINGS,
    ) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._fixed = [
            (":method", "POST"),
            (":scheme", "https" if secure else "http"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "flexrelay"),
        ]
        self._max_message = max_message_bytes
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._in = bytearray()
        self._out: list[bytes] = []
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._open = True
        self._room: deque[asyncio.Future[None]] = deque()
        self._most = 1 << 31
        self._window = _FIRST_WINDOW
        self._their_window = _FIRST_WINDOW
        self._their_frame = 16_384
        self._taken = 0
        self._encoder, self._decoder = Encoder(), Decoder(max_header_list_size=_HEADER_BYTES)
        self._packed: dict[str, bytes] = {}
        self._read: dict[bytes, dict[str, str]] = {}
        self._headers: tuple[int, int, bytearray] | None = None
        self._pulse = Pulse(pings, lambda: bool(self._calls), self._ping, lambda seconds: self._end(Silent(seconds)))

    # --- calls

    async def unary(self, path: str, message: bytes) -> bytes:
        """The answer to one request. Raises CallFailed; cancelled, it tells the server."""
        while len(self._calls) >= self._most and self._open:
            room: asyncio.Future[None] = self._loop.create_future()
            self._room.append(room)
            try:
                await room
            except asyncio.CancelledError:
                self._left()  # the room that was kept for this one is another's
                raise
        if not self._open:
            raise NotTaken
        number = self._next
        self._next += 2
        if number >= _LAST_STREAM:
            self.retire()
        if not self._calls:
            self._pulse.asked()
        call = self._calls[number] = _Call(self._loop.create_future(), self._their_window)
        block = self._packed.get(path) or self._pack(path)
        self._send(_frame(_HEADERS, _END_HEADERS, number, block))
        size = len(message) + 5
        data = b"\0" + (size - 5).to_bytes(4, "big") + message
        if size <= self._window and size <= call.window and size <= self._their_frame:
            self._window -= size
            self._send(_frame(_DATA, _END_STREAM, number, data))
        else:
            call.waiting = memoryview(data)
            self._push(number, call)
        try:
            return await call.done
        finally:
            if self._calls.pop(number, None) is not None:  # given up here
                self._send(_frame(_RST_STREAM, 0, number, _CANCEL.to_bytes(4, "big")))
            self._left()

    @property
    def busy(self) -> bool:
        return bool(self._calls)

    @property
    def pulse(self) -> Pulse:
        """Whether the server is still there."""
        return self._pulse

    @property
    def socket(self) -> Any:
        """The connected socket, as far as options go."""
        return self._transport.get_extra_info("socket") if self._transport is not None else None

    def retire(self) -> None:
        """Take no new calls; close when those that run have ended."""
        if self._open:
            self._open = False
            self._gone(self)
        self._left()

    def close(self) -> None:
        self._end(CallFailed(_Code.CANCELLED, "the connection was closed here"))

    def _left(self) -> None:
        while self._room and (len(self._calls) < self._most or not self._open):
            waiting = self._room.popleft()
            if not waiting.done():
                waiting.set_result(None)
                if self._open:
                    break
        if not self._open and not self._calls and self._transport is not None:
            self._transport.close()

    def _pack(self, path: str) -> bytes:
        block: bytes = self._encoder.encode([*self._fixed[:3], (":path", path), *self._fixed[3:]])
        if _indexed(block):
            self._packed[path] = block
        else:  # the table has changed, and with it the places in it
            self._packed.clear()
        return block

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = ((_ENABLE_PUSH, 0), (_INITIAL_WINDOW, _LARGEST_WINDOW), (_MAX_FRAME, _OUR_FRAME))
        window = (_LARGEST_WINDOW - _FIRST_WINDOW).to_bytes(4, "big")
        self._send(_PREFACE)
        self._send(_frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in settings)))
        self._send(_frame(_WINDOW_UPDATE, 0, 0, window))
        self._pulse.start()

    def data_received(self, data: bytes) -> None:
        self._pulse.heard()
        received = self._in
        received += data
        position, end = 0, len(received)
        try:
            while end - position >= 9:
                high, low, kind, flags, number = _FRAME.unpack_from(received, position)
                size = high << 16 | low
                if size > _OUR_FRAME:
                    raise _Broken(f"a frame of {size} bytes")
                if end - position < 9 + size:
                    break
                payload = bytes(received[position + 9 : position + 9 + size])
                position += 9 + size
                self._take(kind, flags, number & 0x7FFF_FFFF, payload)
        except (_Broken, HPACKError, struct.error) as error:
            self._end(CallFailed(_Code.UNAVAILABLE, f"the peer does not speak HTTP/2 as it should: {error}"))
            return
        del received[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(CallFailed(_Code.UNAVAILABLE, f"the connection broke: {exc or 'closed by the peer'}"))

    def _ping(self) -> None:
        self._send(_frame(_PING, 0, 0, bytes(8)))

    # --- frames

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._headers is not None and kind != _CONTINUATION:
            raise _Broken("a header block is not continued")
        match kind:
            case 0:
                self._pulse.answered()
                self._data(flags, number, payload)
            case 1:
                self._pulse.answered()
                if flags & _PADDED:
                    payload = _unpadded(payload)
                if flags & _PRIORITISED:
                    payload = payload[5:]
                self._head(number, flags, bytearray(payload), bool(flags & _END_HEADERS))
            case 9:
                if self._headers is None or self._headers[0] != number:
                    raise _Broken("a continuation of nothing")
                self._headers[2].extend(payload)
                self._head(number, self._headers[1], self._headers[2], bool(flags & _END_HEADERS))
            case 8:
                self._window_update(number, payload)
            case 6:
                if not flags & _ACK:
                    self._send(_frame(_PING, _ACK, 0, payload))
            case 4:
                self._settings(flags, payload)
            case 3:
                self._reset(number, int.from_bytes(payload, "big"))
            case 7:
                self._goodbye(payload)
            case 5:
                raise _Broken("a push")
            case _:
                pass

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken > _REPLENISH:
            self._send(_frame(_WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0
        call = self._calls.get(number)
        if call is None:
            return
        if flags & _PADDED:
            payload = _unpadded(payload)
        call.body += payload
        if len(call.body) > self._max_message + 5:
            self._fail(number, CallFailed(_Code.RESOURCE_EXHAUSTED, "the answer is larger than max"))
            self._send(_frame(_RST_STREAM, 0, number, _CANCEL.to_bytes(4, "big")))
        elif flags & _END_STREAM:
            self._fail(number, CallFailed(_Code.INTERNAL, "the answer has no status"))

    def _head(self, number: int, flags: int, block: bytearray, complete: bool) -> None:
        if len(block) > _HEADER_BYTES:
            raise _Broken("a header block is too large")
        if not complete:
            self._headers = (number, flags, block)
            return
        self._headers = None
        data = bytes(block)
        headers = self._read.get(data)
        if headers is None:
            headers = {str(name): str(value) for name, value in self._decoder.decode(data)}
            if not _indexed(data):
                self._read.clear()  # the table may have changed, and with it what places in it mean
            elif len(self._read) < _REMEMBERED:
                self._read[data] = headers
        if flags & _END_STREAM:
            self._ended(number, headers)
        elif headers.get(":status", "200") != "200":
            self._fail(number, CallFailed(_Code.UNAVAILABLE, f"HTTP status {headers[':status']}"))

    def _ended(self, number: int, headers: dict[str, str]) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        if "grpc-status" not in headers and headers.get(":status", "200") != "200":  # of a proxy, not of the peer
            self._fail(number, CallFailed(_Code.UNAVAILABLE, f"HTTP status {headers[':status']}"))
            return
        code = _CODES.get(headers.get("grpc-status", ""), _Code.UNKNOWN)
        body = call.body
        if code is not _Code.OK:
            text = urllib.parse.unquote(headers.get("grpc-message", ""), errors="replace")
            self._fail(number, CallFailed(code, text, _binary(headers.get("grpc-status-details-bin", ""))))
        elif len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
            self._fail(number, CallFailed(_Code.INTERNAL, "the answer is not one whole message"))
        else:
            del self._calls[number]
            if not call.done.done():
                call.done.set_result(bytes(memoryview(body)[5:]))

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _HEADER_TABLE_SIZE:
                self._encoder.header_table_size = min(value, 4096)
                self._packed.clear()
            elif key == _MAX_STREAMS:
                self._most = value
            elif key == _INITIAL_WINDOW:
                if value > _LARGEST_WINDOW:
                    raise _Broken(f"a window of {value} bytes")
                for call in self._calls.values():
                    call.window += value - self._their_window
                self._their_window = value
            elif key == _MAX_FRAME:
                if not _FRAMES[0] <= value <= _FRAMES[1]:
                    raise _Broken(f"frames of at most {value} bytes")
                self._their_frame = value
        self._send(_frame(_SETTINGS, _ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)
        self._push_all()
        self._left()

    def _window_update(self, number: int, payload: bytes) -> None:
        more = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if not number:
            self._window += more
            self._push_all()
        elif (call := self._calls.get(number)) is not None:
            call.window += more
            self._push(number, call)

    def _reset(self, number: int, code: int) -> None:
        found = _RESETS.get(code, _Code.INTERNAL)
        self._fail(number, NotTaken() if code == _REFUSED else CallFailed(found, f"the peer reset the call ({code})"))

    def _goodbye(self, payload: bytes) -> None:
        last = int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF
        for number in [number for number in self._calls if number > last]:
            self._fail(number, NotTaken())
        self.retire()

    def _push_all(self) -> None:
        for number, call in list(self._calls.items()):
            self._push(number, call)

    def _push(self, number: int, call: _Call) -> None:
        while call.waiting is not None:
            room = min(self._window, call.window, self._their_frame)
            if room <= 0:
                return
            piece = call.waiting[:room]
            call.waiting = call.waiting[room:] if len(call.waiting) > room else None
            self._window -= len(piece)
            call.window -= len(piece)
            self._send(_frame(_DATA, 0 if call.waiting is not None else _END_STREAM, number, piece))

    def _fail(self, number: int, failure: CallFailed) -> None:
        call = self._calls.pop(number, None)
        if call is not None and not call.done.done():
            call.done.set_exception(failure)

    def _end(self, failure: CallFailed) -> None:
        if not self.ready.done():
            self.ready.set_exception(failure)
            self.ready.exception()  # whoever opened it may have gone
        self._pulse.stop()
        for number in list(self._calls):
            self._fail(number, failure)
        self.retire()
        if self._transport is not None:
            self._transport.abort()

    def _send(self, data: bytes) -> None:
        """With everything else of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _frame(kind: int, flags: int, number: int, payload: bytes | memoryview) -> bytes:
    size = len(payload)
    return b"".join((_FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, number), payload))


def _indexed(block: bytes) -> bool:
    """Whether a header block only names places in the table, each in one byte: then it changes nothing there."""
    return all(0x80 < byte < 0xFF for byte in block)


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _Broken("more padding than frame")
    return payload[1 : len(payload) - payload[0]]


def _binary(text: str) -> bytes:
    """A header whose name ends in -bin."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
