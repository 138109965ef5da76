"""OPC UA binary (Part 6) of what a subscription publishes, as far as it is common: precompiled layouts, exact bytes.

Scalar numbers have a layout each; other values are stepped over, within bounds whatever the bytes say. What is not
well-formed raises `Malformed`. Offsets count bytes; times are ticks of 100 ns since 1601.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

HEAD: Final = struct.Struct("<IH")
"""Client handle; the data value's encoding mask, and the variant's type as the upper byte (Part 6 §5.2.2.16–17)."""

VALUE: Final = 1
STATUS: Final = 2
SOURCE_TIME: Final = 4
SERVER_TIME: Final = 8
SOURCE_PICO: Final = 16
SERVER_PICO: Final = 32
_SCALARS: Final = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d"}
"""Built-in types that are measured values (Part 6 table 1): Boolean, SByte … Double."""

_PARTS: Final = ((STATUS, "I"), (SOURCE_TIME, "q"), (SOURCE_PICO, "H"), (SERVER_TIME, "q"), (SERVER_PICO, "H"))
"""Behind the value, in the encoding's order."""
_TICKS_1970: Final = 116_444_736_000_000_000
_TICKS_MS: Final = 10_000
_I32: Final = struct.Struct("<i")
_U32: Final = struct.Struct("<I")
_RESPONSE: Final = struct.Struct("<IqIIBi3s")
_PUBLISH_RESPONSE: Final = 0x033D_0001
"""TypeId i=829 as a four-byte node id; the others likewise."""
_REPUBLISH_RESPONSE: Final = 0x0343_0001
_HISTORY_RESPONSE: Final = 0x029B_0001
_HISTORY_DATA: Final = 0x0292_0001
_MESSAGE: Final = struct.Struct("<Iqi")
_EXTENSION: Final = struct.Struct("<IBi")
_DATA_CHANGE: Final = 0x032B_0001
_STATUS_CHANGE: Final = 0x0334_0001
_EVENTS: Final = 0x0394_0001


class Malformed(Exception):
    """Not what the standard says, or of a form that is not read here."""


LIMITS: Final = {code: 2.0**17 if code == "f" else 2.0**44 for code in _SCALARS.values()} | {"?": 0.0}
"""Below it a float64 product's distance from the exact one is less than a hundredth: 2^-24 of a Float, 2^-51 else."""


class Item(NamedTuple):
    """One monitored item's change. `value` None: there is none (or none that is a number); the times are ticks, 0 when
    absent; `status` is the StatusCode; `limit` is that of the value's type."""

    handle: int
    value: float | None
    status: int
    source_time: int
    server_time: int
    limit: float = LIMITS["d"]


class Layout(NamedTuple):
    """How a data value of one form lies behind `HEAD`; `size` counts from the client handle. The places are indices
    in what `fields` unpacks, -1 when absent."""

    size: int
    fields: struct.Struct
    value: int
    status: int
    source_time: int
    server_time: int
    codes: str
    limit: float


class Changes(NamedTuple):
    """The items of one DataChangeNotification: `items` of them in `body[start:end]`."""

    body: bytes
    start: int
    end: int
    items: int


class Publish(NamedTuple):
    """A publish response. `sequence` is of the notification message; without notifications it is a keep-alive and
    names the next one. `status` is that of a StatusChangeNotification, None without one."""

    subscription: int
    sequence: int
    more: bool
    changes: tuple[Changes, ...]
    status: int | None
    available: tuple[int, ...]

    @property
    def keep_alive(self) -> bool:
        return not self.changes and self.status is None


def _layouts() -> dict[int, Layout]:
    table = {}
    for mask in range(1, 64, 2):
        for kind, code in _SCALARS.items():
            codes, places = code, {VALUE: 0}
            for bit, field in _PARTS:
                if mask & bit:
                    places[bit] = len(codes)
                    codes += field
            fields = struct.Struct("<" + codes)
            at = [places.get(bit, -1) for bit in (VALUE, STATUS, SOURCE_TIME, SERVER_TIME)]
            table[mask | kind << 8] = Layout(
                HEAD.size + fields.size, fields, at[0], at[1], at[2], at[3], codes, LIMITS[code]
            )
    return table


LAYOUTS: Final = _layouts()
"""By the second field of `HEAD`."""


def _stamps(first: str, second: str) -> dict[int, tuple[int, int]]:
    table = {}
    for key, layout in LAYOUTS.items():
        place = getattr(layout, first) if getattr(layout, first) >= 0 else getattr(layout, second)
        before = struct.calcsize("<" + layout.codes[:place]) if place > 0 else -1
        table[key] = (layout.size, HEAD.size + before if place > 0 else 0)
    return table


BY_SOURCE: Final = _stamps("source_time", "server_time")
"""Second field of `HEAD` → (size, offset of the time in the item, 0 when it has none)."""
BY_SERVER: Final = _stamps("server_time", "source_time")
STATUS_AT: Final = {
    key: HEAD.size + struct.calcsize("<" + layout.codes[: layout.status]) if layout.status >= 0 else 0
    for key, layout in LAYOUTS.items()
}
"""Second field of `HEAD` → offset of the StatusCode in the item, 0 when it has none."""
TICKS: Final = struct.Struct("<q")
BAD: Final = 0x8000_0000
UNCERTAIN: Final = 0x4000_0000
"""Severity bits of a StatusCode (Part 4 §7.39)."""
STATUS_MASK: Final = 0xFFFF_0000
"""Without the bits that say how the value came about."""
OVERFLOW: Final = 0x0480
"""InfoType DataValue with the Overflow bit: the server's queue has run over, values before this one are lost."""
NOTHING_YET: Final = 0x8032_0000
"""BadWaitingForInitialData: the server has not got a value of the device so far."""


def item_at(body: bytes, offset: int, end: int) -> tuple[Item, int]:
    """The item at `offset` and where the next one begins. Raises Malformed."""
    try:
        layout = LAYOUTS.get(body[offset + 4] | body[offset + 5] << 8) if end - offset > HEAD.size else None
        if layout is None:
            return _without_layout(body, offset, end)
        handle, _ = HEAD.unpack_from(body, offset)
        values = layout.fields.unpack_from(body, offset + HEAD.size)
    except (struct.error, IndexError):
        raise Malformed("cut off") from None
    _, _, value, status, source, server, _, limit = layout
    after = offset + layout.size
    if after > end:
        raise Malformed("cut off")
    return (
        Item(
            handle,
            values[value],
            values[status] if status >= 0 else 0,
            values[source] if source >= 0 else 0,
            values[server] if server >= 0 else 0,
            limit,
        ),
        after,
    )


def _without_layout(body: bytes, offset: int, end: int) -> tuple[Item, int]:
    """An item whose value is no scalar number."""
    (handle,) = _U32.unpack_from(body, offset)
    times, offset = data_value(body, offset + 4, end)
    return Item(handle, None, *times), offset


def data_value(body: bytes, offset: int, end: int, depth: int = 0) -> tuple[tuple[int, int, int], int]:
    """(status, source time, server time) of a DataValue, whatever its value, and where it ends. Raises Malformed."""
    mask = body[offset]
    if mask > 63:
        raise Malformed("unknown encoding mask")
    offset = _variant_end(body, offset + 1, end, depth) if mask & VALUE else offset + 1
    found = {STATUS: 0, SOURCE_TIME: 0, SERVER_TIME: 0}
    for bit, code in _PARTS:
        if mask & bit:
            (found[bit],) = struct.unpack_from("<" + code, body, offset)
            offset += struct.calcsize("<" + code)
    if offset > end:
        raise Malformed("cut off")
    return (found[STATUS], found[SOURCE_TIME], found[SERVER_TIME]), offset


_FIXED: Final = {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8, 13: 8, 14: 16, 19: 4}
_DEPTH: Final = 16
_ARRAY: Final = 0x80
_DIMENSIONS: Final = 0x40
_NODE_IDS: Final = {0: 1, 1: 3, 2: 6, 4: 18}
"""Bytes after the encoding byte of a node id: two byte, four byte, numeric, GUID; 3 and 5 hold a text."""


def _variant_end(body: bytes, offset: int, end: int, depth: int) -> int:
    kind = body[offset]
    offset += 1
    element = kind & 63
    if depth > _DEPTH or element > 25:
        raise Malformed("an unknown type, or nested too deeply")
    if not kind & _ARRAY:
        return _element_end(body, offset, end, element, depth) if element else offset
    (count,) = _I32.unpack_from(body, offset)
    offset += 4
    if count > 0:
        if not element or count > end - offset:  # every element takes at least a byte
            raise Malformed("an array that is longer than its bytes")
        if element in _FIXED:
            offset += count * _FIXED[element]
        else:
            for _ in range(count):
                offset = _element_end(body, offset, end, element, depth)
    if kind & _DIMENSIONS:
        (count,) = _I32.unpack_from(body, offset)
        offset += 4 + 4 * max(count, 0)
    if offset > end:
        raise Malformed("cut off")
    return offset


def _element_end(body: bytes, offset: int, end: int, kind: int, depth: int) -> int:
    if kind in _FIXED:
        offset += _FIXED[kind]
    elif kind in (12, 15, 16):  # String, ByteString, XmlElement
        offset = _text_end(body, offset)
    elif kind in (17, 18):
        offset = _node_id_end(body, offset)
    elif kind == 20:  # QualifiedName
        offset = _text_end(body, offset + 2)
    elif kind == 21:  # LocalizedText
        mask = body[offset]
        offset += 1
        for bit in (1, 2):
            offset = _text_end(body, offset) if mask & bit else offset
    elif kind == 22:  # ExtensionObject
        offset = _node_id_end(body, offset)
        encoding = body[offset]
        offset = _text_end(body, offset + 1) if encoding else offset + 1
    elif kind == 23:
        _, offset = data_value(body, offset, end, depth + 1)
    elif kind == 24:
        offset = _variant_end(body, offset, end, depth + 1)
    else:
        offset = _diagnostics_end(body, offset, end, depth + 1)
    if offset > end:
        raise Malformed("cut off")
    return offset


def _text_end(body: bytes, offset: int) -> int:
    (size,) = _I32.unpack_from(body, offset)
    return offset + 4 + (size if size > 0 else 0)


def _node_id_end(body: bytes, offset: int) -> int:
    encoding = body[offset]
    kind = encoding & 63
    if kind in _NODE_IDS:
        offset += 1 + _NODE_IDS[kind]
    elif kind in (3, 5):
        offset = _text_end(body, offset + 3)
    else:
        raise Malformed("unknown form of a node id")
    offset = _text_end(body, offset) if encoding & 0x80 else offset
    return offset + 4 if encoding & 0x40 else offset


def _diagnostics_end(body: bytes, offset: int, end: int, depth: int) -> int:
    if depth > _DEPTH:
        raise Malformed("nested too deeply")
    mask = body[offset]
    offset += 1 + 4 * (mask & 15).bit_count()
    offset = _text_end(body, offset) if mask & 16 else offset
    offset = offset + 4 if mask & 32 else offset
    return _diagnostics_end(body, offset, end, depth + 1) if mask & 64 else offset


def scan(changes: Changes, stamps: Mapping[int, tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """(client handle, start, end, time in ticks or 0) of every item; `stamps` is BY_SOURCE or BY_SERVER.

    Raises Malformed.
    """
    body, offset, end, count = changes
    found: list[tuple[int, int, int, int]] = []
    unpack, time = HEAD.unpack_from, TICKS.unpack_from
    try:
        for _ in range(count):
            handle, key = unpack(body, offset)  # an item has 5 bytes at least, and the diagnostics' count follows
            known = stamps.get(key)
            if known is not None:
                after = offset + known[0]
                found.append((handle, offset, after, time(body, offset + known[1])[0] if known[1] else 0))
            else:
                item, after = item_at(body, offset, end)
                first, second = item.source_time, item.server_time
                if stamps is BY_SERVER:
                    first, second = second, first
                found.append((handle, offset, after, first or second))
            offset = after
    except (struct.error, IndexError):
        raise Malformed("cut off") from None
    if offset > end:
        raise Malformed("cut off")
    return found


def parse_publish(body: bytes) -> Publish:
    """A whole PublishResponse (Part 4 §5.14.5). Raises Malformed."""
    try:
        offset = _header_end(body, _PUBLISH_RESPONSE)
        subscription, count = struct.unpack_from("<Ii", body, offset)
        offset += 8
        if count * 4 > len(body):
            raise Malformed("cut off")
        available = struct.unpack_from(f"<{max(count, 0)}I", body, offset)
        offset += 4 * max(count, 0)
        return _message(body, offset + 1, subscription, body[offset] != 0, available)
    except (struct.error, IndexError):
        raise Malformed("cut off") from None


def parse_republish(body: bytes, subscription: int) -> Publish:
    """A whole RepublishResponse (Part 4 §5.14.6). Raises Malformed."""
    try:
        return _message(body, _header_end(body, _REPUBLISH_RESPONSE), subscription, False, ())
    except (struct.error, IndexError):
        raise Malformed("cut off") from None


def _message(body: bytes, offset: int, subscription: int, more: bool, available: tuple[int, ...]) -> Publish:
    sequence, _, parts = _MESSAGE.unpack_from(body, offset)
    offset += _MESSAGE.size
    changes: list[Changes] = []
    status = None
    for _ in range(parts):
        kind, encoding, size = _EXTENSION.unpack_from(body, offset)
        offset += _EXTENSION.size
        end = offset + size
        if encoding != 1 or size < 4 or end > len(body):
            raise Malformed("a notification without its bytes")
        if kind == _DATA_CHANGE:
            (count,) = _I32.unpack_from(body, offset)
            changes.append(Changes(body, offset + 4, end, max(count, 0)))
        elif kind == _STATUS_CHANGE:
            (status,) = _U32.unpack_from(body, offset)
        elif kind != _EVENTS:
            raise Malformed("a notification of an unknown kind")
        offset = end
    return Publish(subscription, sequence, more, tuple(changes), status, available)


def parse_history(body: bytes) -> tuple[int, bytes, tuple[bytes, ...]]:
    """(StatusCode, continuation point, DataValues) of the first result of a HistoryReadResponse (Part 4 §5.11.3).

    Raises Malformed.
    """
    try:
        offset = _header_end(body, _HISTORY_RESPONSE)
        count, status, size = struct.unpack_from("<iIi", body, offset)
        offset += 12
        continuation = body[offset : offset + max(size, 0)]
        offset += max(size, 0)
        start = _node_id_end(body, offset)
        if count < 1 or body[start] != 1:
            return status, continuation, ()
        kind, _, size, values = struct.unpack_from("<IBii", body, offset)
        end = offset + 9 + size
        offset += 13
        if kind != _HISTORY_DATA or end > len(body) or values > size:
            raise Malformed("no HistoryData")
        found = []
        for _ in range(values):
            _, after = data_value(body, offset, end)
            found.append(body[offset:after])
            offset = after
    except (struct.error, IndexError):
        raise Malformed("cut off") from None
    return status, continuation, tuple(found)


def _header_end(body: bytes, kind: int) -> int:
    """Where a response's parameters begin (Part 4 §7.33). Raises Malformed for another kind of response."""
    found, _, _, _, diagnostics, strings, header = _RESPONSE.unpack_from(body, 0)
    if found != kind:
        raise Malformed("another response than asked for")
    if not diagnostics and strings <= 0 and header == b"\0\0\0":
        return _RESPONSE.size
    offset = _diagnostics_end(body, 20, len(body), 0)
    (strings,) = _I32.unpack_from(body, offset)
    offset += 4
    for _ in range(min(strings, len(body))):
        offset = _text_end(body, offset)
    return _element_end(body, offset, len(body), 22, 0)


def milliseconds(ticks: int) -> int:
    """UTC ms since 1970 of a DateTime; 0 for "no time" (0 and the greatest DateTime, Part 6 §5.2.2.5)."""
    if 0 < ticks < 2_650_467_743_990_000_000:
        return (ticks - _TICKS_1970) // _TICKS_MS
    return 0


def ticks(ms: int) -> int:
    """A DateTime of UTC ms since 1970."""
    return ms * _TICKS_MS + _TICKS_1970
