"""CoAP messages as bytes (RFC 7252 §3): pure, and written for speed, since every datagram passes here."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from flexrelay_adapters.lwm2m.coap.codes import URI_PATH, URI_QUERY

Option = tuple[int, bytes]
"""(number, value)."""

MAX_OPTIONS: Final = 64
MARKER: Final = 0xFF


class Message(NamedTuple):
    """`kind` is CON, NON, ACK or RST; `options` stand in the order of the message."""

    kind: int
    code: int
    mid: int
    token: bytes = b""
    options: tuple[Option, ...] = ()
    payload: bytes = b""

    def option(self, number: int) -> bytes | None:
        """The first value of an option, None where it is not there."""
        for found, value in self.options:
            if found == number:
                return value
        return None

    def uint(self, number: int) -> int | None:
        """The first value of an option as an unsigned integer (§3.2)."""
        for found, value in self.options:
            if found == number:
                return int.from_bytes(value, "big")
        return None

    def path(self) -> tuple[str, ...]:
        """The Uri-Path segments; bytes that are no UTF-8 are replaced, so they match nothing."""
        return tuple([value.decode(errors="replace") for found, value in self.options if found == URI_PATH])

    def query(self) -> list[str]:
        return [value.decode(errors="replace") for found, value in self.options if found == URI_QUERY]


class MessageError(ValueError):
    """The bytes are no CoAP message. `kind` and `mid` are those of its header where it has one, else None."""

    def __init__(self, why: str, kind: int | None = None, mid: int | None = None) -> None:
        super().__init__(why)
        self.kind = kind
        self.mid = mid


def parse(data: bytes) -> Message:
    """Raises MessageError and nothing else, whatever the bytes are."""
    size = len(data)
    if size < 4:
        raise MessageError(f"{size} bytes are no message")
    first = data[0]
    if first >> 6 != 1:
        raise MessageError(f"version {first >> 6}; only 1 is known")
    kind, length = first >> 4 & 3, first & 15
    code = data[1]
    mid = data[2] << 8 | data[3]
    at = 4 + length
    if length > 8 or at > size:
        raise MessageError("the token is cut off or longer than 8 bytes", kind, mid)
    if code == 0 and size > 4:
        raise MessageError("an empty message with content", kind, mid)
    if at == size:
        return Message(kind, code, mid, data[4:at])
    options: list[Option] = []
    number = 0
    while at < size:
        head = data[at]
        at += 1
        if head == MARKER:
            if at == size:
                raise MessageError("a payload marker without a payload", kind, mid)
            return Message(kind, code, mid, data[4 : 4 + length], tuple(options), data[at:])
        delta, extent = head >> 4, head & 15
        if delta > 12 or extent > 12:
            delta, extent, at = _extended(data, at, delta, extent, kind, mid)
        number += delta
        end = at + extent
        if end > size or len(options) == MAX_OPTIONS:
            raise MessageError(f"option {number} is cut off, or there are more than {MAX_OPTIONS}", kind, mid)
        options.append((number, data[at:end]))
        at = end
    return Message(kind, code, mid, data[4 : 4 + length], tuple(options))


def _extended(data: bytes, at: int, delta: int, extent: int, kind: int, mid: int) -> tuple[int, int, int]:
    """Option delta and length with their extension bytes (§3.1), and where they end."""
    values = []
    for nibble in (delta, extent):
        if nibble == 13:
            if at + 1 > len(data):
                raise MessageError("an option is cut off", kind, mid)
            nibble = 13 + data[at]
            at += 1
        elif nibble == 14:
            if at + 2 > len(data):
                raise MessageError("an option is cut off", kind, mid)
            nibble = 269 + (data[at] << 8 | data[at + 1])
            at += 2
        elif nibble == 15:
            raise MessageError("a reserved option length", kind, mid)
        values.append(nibble)
    if values[0] > 65_535:
        raise MessageError("an option number beyond 65535", kind, mid)
    return values[0], values[1], at


def serialise(
    kind: int, code: int, mid: int, token: bytes = b"", options: Sequence[Option] = (), payload: bytes = b""
) -> bytes:
    """The bytes of a message; options are put in order, those of one number stay in theirs."""
    if not options and not payload:  # most answers
        return bytes((0x40 | kind << 4 | len(token), code, mid >> 8, mid & 255)) + token
    out = bytearray((0x40 | kind << 4 | len(token), code, mid >> 8, mid & 255))
    out += token
    before = 0
    for number, value in sorted(options, key=_number):
        delta, length = number - before, len(value)
        if delta < 13 and length < 13:
            out.append(delta << 4 | length)
        else:
            first, delta_more = _nibble(delta)
            second, length_more = _nibble(length)
            out.append(first << 4 | second)
            out += delta_more + length_more
        out += value
        before = number
    if payload:
        out.append(MARKER)
        out += payload
    return bytes(out)


def _number(option: Option) -> int:
    return option[0]


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")


def uint(number: int, value: int) -> Option:
    """An option whose value is an unsigned integer, in as few bytes as it takes (§3.2)."""
    return number, value.to_bytes((value.bit_length() + 7) // 8, "big")


def path_options(path: str) -> list[Option]:
    """Uri-Path options of "/3305/0"."""
    return [(URI_PATH, segment.encode()) for segment in path.split("/") if segment]
