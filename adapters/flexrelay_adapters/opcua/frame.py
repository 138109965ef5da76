"""The form of an OPC UA frame: what is journaled of one device from one publish response, or of its history.

Layout 1, little-endian: "OUA1", kind u8 (0: data changes, 1: history), shift u8, length of the node table u16; the node
table: client handle u32, length u16 and text of the node id as configured, one node after the other; then the
items: each is exactly the bytes of a MonitoredItemNotification (client handle u32, DataValue) as the server sent
them. Of history the DataValues are the server's bytes, the handles before them the gateway's.

The table makes a frame readable without the subscription that it came from. `shift` (ms) is added to the items' source
times: 0 but for items whose instant had been taken by an earlier frame of the device; a change holds from its time on.
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from flexrelay_sdk import DecodeError

MAGIC: Final = b"OUA1"
CHANGES: Final = 0
HISTORY: Final = 1
_HEADER: Final = struct.Struct("<4sBBH")
_NODE: Final = struct.Struct("<IH")
MAX_TABLE: Final = 65_535


class Envelope(NamedTuple):
    """A frame's parts; the items are `payload[start:]`."""

    kind: int
    shift_ms: int
    table: bytes
    start: int


def node_table(nodes: Iterable[tuple[int, str]]) -> bytes:
    """(client handle, node id) pairs as bytes. Raises ValueError when they are too long for one frame."""
    table = b"".join([_NODE.pack(handle, len(text)) + text for handle, node in nodes for text in [node.encode()]])
    if len(table) > MAX_TABLE:
        raise ValueError(f"the node ids of one device take {len(table)} bytes; at most {MAX_TABLE} are possible")
    return table


def head(table: bytes, kind: int = CHANGES, shift_ms: int = 0) -> bytes:
    """What stands before the items."""
    return _HEADER.pack(MAGIC, kind, shift_ms, len(table)) + table


def open_frame(payload: bytes) -> Envelope:
    """Raises DecodeError."""
    try:
        magic, kind, shift_ms, size = _HEADER.unpack_from(payload)
    except struct.error:
        raise DecodeError("cut_off", f"{len(payload)} bytes are no OPC UA frame", "header") from None
    if magic != MAGIC or kind > HISTORY:
        raise DecodeError("unknown_version", "not an OPC UA frame of layout 1", "header")
    start = _HEADER.size + size
    if start > len(payload):
        raise DecodeError("cut_off", "the node table is cut off", "nodes")
    return Envelope(kind, shift_ms, payload[_HEADER.size : start], start)


def nodes_of(table: bytes) -> list[tuple[int, str]]:
    """The (client handle, node id) pairs of a node table. Raises DecodeError."""
    nodes = []
    offset = 0
    try:
        while offset < len(table):
            handle, size = _NODE.unpack_from(table, offset)
            offset += _NODE.size
            text = table[offset : offset + size]
            if len(text) != size:
                raise DecodeError("cut_off", "the node table is cut off", "nodes")
            nodes.append((handle, text.decode()))
            offset += size
    except struct.error:
        raise DecodeError("cut_off", "the node table is cut off", "nodes") from None
    except UnicodeDecodeError:
        raise DecodeError("not_utf8", "a node id is not UTF-8", "nodes") from None
    return nodes
