"""The serving side of gRPC over HTTP/2 (RFC 9113), as far as bidirectional streams need it. Bytes in, bytes out.

Pure: it knows no socket and no clock. gRPC's own server costs several times more for the few large streams of a
chaincode. Header blocks are read by the `hpack` library; what is sent needs no compression.
"""

import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = range(10)
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _PRIORITISED = 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME, _MAX_HEADERS = 0x1, 0x3, 0x4, 0x5, 0x6

_FIRST_WINDOW: Final = 65_535
_FIRST_FRAME: Final = 16_384
_OUR_FRAME: Final = 1 << 20
_OUR_WINDOW: Final = (1 << 31) - 1
_REPLENISH: Final = 1 << 28
"""Our windows are as large as can be; they are filled up after so many bytes. What is buffered is bounded by the size
of one message for each stream."""
_HEADER_BYTES: Final = 65_536
_STREAMS: Final = 16
_FRAME: Final = struct.Struct(">BHBBI")
_PREFIX: Final = struct.Struct(">BI")

_RESPONSE: Final = b"\x88" + b"\x0f\x10\x10application/grpc"
""":status 200 (static entry 8) and content-type (static name 31), never indexed: the peer's table stays empty."""


class Code(IntEnum):
    """HTTP/2's error codes."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Status(IntEnum):
    """gRPC's status codes that this side gives."""

    OK = 0
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12


class ProtocolFault(Exception):
    """The other side breaks the protocol: say goodbye and close."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Opened:
    """A request has begun; answer with `accept` or `finish`."""

    stream: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Message:
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The other side sends nothing more on this stream."""

    stream: int


Event = Opened | Message | Ended


@dataclass(slots=True)
class _Stream:
    window: int
    buffer: bytearray = field(default_factory=bytearray)
    taken: int = 0
    waiting: deque[memoryview] = field(default_factory=deque)
    """What the window has no room for."""
    last: bytes | None = None
    """The trailers, when they wait for what is before them."""


class Http2:
    """One connection. `receive` gives what came; everything to be sent is collected until `outgoing`.

    Not for two threads at once.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message = max_message_bytes
        self._in = bytearray()
        self._greeted = False
        self._settled = False
        self._decoder = Decoder(max_header_list_size=_HEADER_BYTES)
        self._headers: tuple[int, int, bytearray] | None = None
        self._streams: dict[int, _Stream] = {}
        self._highest = 0
        self._window = _FIRST_WINDOW
        self._their_window = _FIRST_WINDOW
        self._their_frame = _FIRST_FRAME
        self._taken = 0
        self._events: list[Event] = []
        settings = (
            (_MAX_STREAMS, _STREAMS),
            (_INITIAL_WINDOW, _OUR_WINDOW),
            (_MAX_FRAME, _OUR_FRAME),
            (_MAX_HEADERS, _HEADER_BYTES),
        )
        self._out: list[bytes] = [
            _frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in settings)),
            _frame(_WINDOW_UPDATE, 0, 0, (_OUR_WINDOW - _FIRST_WINDOW).to_bytes(4, "big")),
        ]

    def receive(self, data: bytes) -> list[Event]:
        """Raises ProtocolFault; say `goodbye` with its code then."""
        received = self._in
        received += data
        position = 0
        if not self._greeted:
            if not PREFACE.startswith(received[: len(PREFACE)]):
                raise ProtocolFault(Code.PROTOCOL_ERROR, "the connection does not begin as HTTP/2")
            if len(received) < len(PREFACE):
                return []
            self._greeted, position = True, len(PREFACE)
        end = len(received)
        while end - position >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(received, position)
            size = high << 16 | low
            if size > _OUR_FRAME:
                raise ProtocolFault(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            if end - position < 9 + size:
                break
            payload = bytes(received[position + 9 : position + 9 + size])
            position += 9 + size
            self._take(kind, flags, stream & 0x7FFF_FFFF, payload)
        del received[:position]
        events, self._events = self._events, []
        return events

    def accept(self, stream: int) -> None:
        """Answer a request with the headers of a good response."""
        if stream in self._streams:
            self._out.append(_frame(_HEADERS, _END_HEADERS, stream, _RESPONSE))

    def send(self, stream: int, message: bytes) -> None:
        """One message of the response; what the other side has no room for waits. Nothing for a stream that is gone."""
        found = self._streams.get(stream)
        if found is None or found.last is not None:
            return
        size = len(message) + 5
        data = _PREFIX.pack(0, size - 5) + message
        if not found.waiting and size <= self._window and size <= found.window and size <= self._their_frame:
            self._window -= size
            found.window -= size
            self._out.append(_FRAME.pack(size >> 16, size & 0xFFFF, _DATA, 0, stream) + data)
            return
        found.waiting.append(memoryview(data))
        self._push(stream, found)

    def finish(self, stream: int, status: Status = Status.OK, text: str = "") -> None:
        """End the response; what waits goes before. `text` is plain ASCII."""
        found = self._streams.get(stream)
        if found is None or found.last is not None:
            return
        found.last = _literal(b"grpc-status", str(int(status)).encode())
        if text:
            found.last += _literal(b"grpc-message", _percent(text))
        self._push(stream, found)

    def goodbye(self, code: Code = Code.NO_ERROR) -> None:
        self._out.append(_frame(_GOAWAY, 0, 0, struct.pack(">II", self._highest, code)))

    def outgoing(self) -> bytes:
        """All that is to be sent now."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # --- frames that came

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._headers is not None and kind != _CONTINUATION:
            raise ProtocolFault(Code.PROTOCOL_ERROR, "a header block is not continued")
        if kind == _DATA:
            self._data(flags, stream, payload)
            return
        if not self._settled and kind != _SETTINGS:
            raise ProtocolFault(Code.PROTOCOL_ERROR, "the connection does not begin with settings")
        match kind:
            case 8:  # WINDOW_UPDATE
                self._window_update(stream, payload)
            case 6:  # PING
                if stream or len(payload) != 8:
                    raise ProtocolFault(Code.FRAME_SIZE_ERROR if not stream else Code.PROTOCOL_ERROR, "a bad ping")
                if not flags & _ACK:
                    self._out.append(_frame(_PING, _ACK, 0, payload))
            case 4:  # SETTINGS
                self._settings(flags, stream, payload)
            case 1:  # HEADERS
                if flags & _PADDED:
                    payload = _unpadded(payload)
                if flags & _PRIORITISED:
                    payload = payload[5:]
                self._head(stream, flags, bytearray(payload), bool(flags & _END_HEADERS))
            case 9:  # CONTINUATION
                if self._headers is None or self._headers[0] != stream:
                    raise ProtocolFault(Code.PROTOCOL_ERROR, "a continuation of nothing")
                first, block = self._headers[1:]
                block += payload
                self._head(stream, first, block, bool(flags & _END_HEADERS))
            case 3:  # RST_STREAM
                if len(payload) != 4 or not stream or stream > self._highest:
                    raise ProtocolFault(Code.PROTOCOL_ERROR, "a bad reset")
                self._gone(stream)
            case 5:  # PUSH_PROMISE
                raise ProtocolFault(Code.PROTOCOL_ERROR, "a client pushes nothing")
            case _:  # GOAWAY, PRIORITY and what is not known ask for nothing
                pass

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        found = self._streams.get(stream)
        self._taken += len(payload)
        if self._taken > _REPLENISH:
            self._out.append(_frame(_WINDOW_UPDATE, 0, 0, self._taken.to_bytes(4, "big")))
            self._taken = 0
        if found is None:
            if not stream or stream > self._highest:
                raise ProtocolFault(Code.PROTOCOL_ERROR, "data on a stream that is not open")
            return  # it ended a moment ago
        found.taken += len(payload)
        if found.taken > _REPLENISH:
            self._out.append(_frame(_WINDOW_UPDATE, 0, stream, found.taken.to_bytes(4, "big")))
            found.taken = 0
        if flags & _PADDED:
            payload = _unpadded(payload)
        buffer = found.buffer
        whole = len(payload) >= 5 and not payload[0] and int.from_bytes(payload[1:5], "big") == len(payload) - 5
        if whole and not buffer and len(payload) - 5 <= self._max_message:  # the usual case
            self._events.append(Message(stream, payload[5:]))
        else:
            buffer += payload
            self._messages(stream, buffer)
        if flags & _END_STREAM and stream in self._streams:
            self._events.append(Ended(stream))

    def _messages(self, stream: int, buffer: bytearray) -> None:
        position = 0
        while len(buffer) - position >= 5:
            compressed, size = _PREFIX.unpack_from(buffer, position)
            if compressed or size > self._max_message:
                if compressed:
                    self.finish(stream, Status.UNIMPLEMENTED, "compressed messages are not taken")
                else:
                    self.finish(stream, Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes is too large")
                self._events.append(Ended(stream))
                self._gone(stream)
                return
            if len(buffer) - position - 5 < size:
                break
            position += 5 + size
            self._events.append(Message(stream, bytes(buffer[position - size : position])))
        del buffer[:position]

    def _head(self, stream: int, flags: int, block: bytearray, complete: bool) -> None:
        if len(block) > _HEADER_BYTES:
            raise ProtocolFault(Code.ENHANCE_YOUR_CALM, "a header block is too large")
        if not complete:
            self._headers = (stream, flags, block)
            return
        self._headers = None
        try:
            headers = dict(self._decoder.decode(bytes(block)))
        except HPACKError as error:
            raise ProtocolFault(Code.COMPRESSION_ERROR, f"a header block cannot be read: {error}") from None
        ends = bool(flags & _END_STREAM)
        if stream in self._streams:  # trailers
            if ends:
                self._events.append(Ended(stream))
            return
        if not stream % 2 or stream <= self._highest:
            raise ProtocolFault(Code.PROTOCOL_ERROR, f"a request on stream {stream}")
        self._highest = stream
        if len(self._streams) >= _STREAMS:
            self._out.append(_frame(_RST_STREAM, 0, stream, Code.REFUSED_STREAM.to_bytes(4, "big")))
            return
        self._streams[stream] = _Stream(self._their_window)
        self._events.append(Opened(stream, {str(name): str(value) for name, value in headers.items()}))
        if ends:
            self._events.append(Ended(stream))

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        self._settled = True
        if flags & _ACK:
            return
        if stream or len(payload) % 6:
            raise ProtocolFault(Code.FRAME_SIZE_ERROR, "bad settings")
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW:
                if value > _OUR_WINDOW:
                    raise ProtocolFault(Code.FLOW_CONTROL_ERROR, "a window is too large")
                for found in self._streams.values():
                    found.window += value - self._their_window
                self._their_window = value
            elif key == _MAX_FRAME:
                if not _FIRST_FRAME <= value < 1 << 24:
                    raise ProtocolFault(Code.PROTOCOL_ERROR, "a frame size that does not exist")
                self._their_frame = value
        self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
        self._push_all()

    def _window_update(self, stream: int, payload: bytes) -> None:
        more = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if len(payload) != 4 or not more:
            raise ProtocolFault(Code.PROTOCOL_ERROR, "a bad window update")
        if not stream:
            self._window += more
            if self._window > _OUR_WINDOW:
                raise ProtocolFault(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self._push_all()
        elif (found := self._streams.get(stream)) is not None:
            found.window += more
            if found.window > _OUR_WINDOW:
                raise ProtocolFault(Code.FLOW_CONTROL_ERROR, "a stream's window is too large")
            self._push(stream, found)

    def _gone(self, stream: int) -> None:
        if self._streams.pop(stream, None) is not None:
            self._events.append(Ended(stream))

    # --- what waits to be sent

    def _push_all(self) -> None:
        for stream, found in list(self._streams.items()):
            self._push(stream, found)

    def _push(self, stream: int, found: _Stream) -> None:
        while found.waiting:
            room = min(self._window, found.window, self._their_frame)
            if room <= 0:
                return
            data = found.waiting.popleft()
            if len(data) > room:
                found.waiting.appendleft(data[room:])
                data = data[:room]
            self._window -= len(data)
            found.window -= len(data)
            self._out.append(_frame(_DATA, 0, stream, data))
        if found.last is not None:
            self._out.append(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, found.last))
            self._out.append(_frame(_RST_STREAM, 0, stream, bytes(4)))
            self._streams.pop(stream, None)


def _frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    size = len(payload)
    return b"".join((_FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream), payload))


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolFault(Code.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is never indexed, its name and value as they are (RFC 7541, 6.2.3)."""
    return b"\x10" + _text(name) + _text(value)


def _text(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    rest, head = size - 127, bytearray(b"\x7f")
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    return bytes(head) + data


def _percent(text: str) -> bytes:
    """gRPC's escape of a status message."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()
    )
