"""From the values that are wanted to the requests that are made: registers near one another are read together."""

from collections.abc import Iterable
from typing import Final

from flexrelay_adapters.modbus.values import Span

MAX_COUNT: Final = 125
"""Registers in one request (Modbus Application Protocol 1.1b3, 6.3 and 6.4)."""


def blocks_of(spans: Iterable[Span], *, max_gap: int = 8, max_count: int = MAX_COUNT) -> tuple[Span, ...]:
    """The fewest blocks in order of address; between two values of a block at most `max_gap` unused registers are read.

    A span is never torn apart. Raises ValueError for one that is longer than a request can be.
    """
    blocks: list[Span] = []
    for span in sorted(set(spans)):
        if span.size > max_count:
            raise ValueError(f"{span.size} registers at {span.address} are more than one request reads ({max_count})")
        last = blocks[-1] if blocks else None
        if last is not None and last.table == span.table and span.address <= last.end + max_gap:
            count = max(last.end, span.end) - last.address
            if count <= max_count:
                blocks[-1] = Span(last.table, last.address, count)
                continue
        blocks.append(span)
    return tuple(blocks)
