"""What a server has kept of a device's variables, as frames (HistoryRead of raw values, Part 11 §6.4.3)."""

import struct
from collections.abc import AsyncIterator, Mapping
from typing import Final

from flexrelay_adapters.opcua._stack import Connection
from flexrelay_adapters.opcua.config import OpcuaConfig
from flexrelay_adapters.opcua.wire import NOTHING_YET, STATUS_MASK, data_value, milliseconds

WINDOW_MS: Final = 900_000
"""Of one round of reads: what is in memory at once."""
PAGE: Final = 1000
"""Values asked for with one request."""
MOST: Final = 200_000
"""Values of one variable in one window; a server that gives more is not read on."""


async def read_device(
    connection: Connection, config: OpcuaConfig, device: str, from_ms: Mapping[int, int], until_ms: int
) -> AsyncIterator[list[tuple[int, bytes]]]:
    """(UTC ms, item) of a device, window by window, oldest first; an item has the form that a frame holds.

    `from_ms` gives the first instant wanted by client handle. Variables without a history are passed over. Raises
    ConnectionLost.
    """
    nodes = {}
    for handle, (name, _, source) in enumerate(config.nodes(), 1):
        if name == device and handle in from_ms:
            try:
                nodes[handle] = connection.resolve(source.node)
            except ValueError:
                continue
    start = min(from_ms.values(), default=until_ms)
    while start < until_ms and nodes:
        end = min(start + WINDOW_MS, until_ms)
        items: list[tuple[int, bytes]] = []
        for handle, node in list(nodes.items()):
            if from_ms[handle] >= end:
                continue
            prefix = struct.pack("<I", handle)
            more = b""
            count = 0
            while True:
                page = await connection.history(node, max(start, from_ms[handle]), end, PAGE, more)
                if page is None:
                    del nodes[handle]
                    break
                for value in page.values:
                    (status, source_time, server_time), _ = data_value(value, 0, len(value))
                    first, second = source_time, server_time
                    if config.time == "server":
                        first, second = second, first
                    instant = milliseconds(first) or milliseconds(second)
                    if status & STATUS_MASK != NOTHING_YET and max(start, from_ms[handle]) <= instant < end:
                        items.append((instant, prefix + value))
                count += len(page.values)
                more = page.more
                if not more or count >= MOST:
                    break
        if items:
            yield sorted(items, key=lambda item: item[0])
        start = end
