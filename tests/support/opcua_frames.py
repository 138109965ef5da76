"""Bytes of monitored items, made by hand."""

from __future__ import annotations

import struct
from typing import Any

from flexrelay_adapters.opcua.wire import ticks

AT = 1_700_000_000_123
KINDS = {"d": 11, "f": 10, "i": 6, "q": 8, "H": 5, "?": 1}


def item(handle: int, value: Any, code: str = "d", source: int = AT, server: int = AT, status: int = 0) -> bytes:
    """A MonitoredItemNotification; `code` as in struct, times in ms (0: none), StatusCode (0: left out)."""
    mask = 1 | (2 if status else 0) | (4 if source else 0) | (8 if server else 0)
    body = struct.pack("<IBB" + code, handle, mask, KINDS[code], value)
    body += struct.pack("<I", status) if status else b""
    body += struct.pack("<q", ticks(source)) if source else b""
    return body + (struct.pack("<q", ticks(server)) if server else b"")
