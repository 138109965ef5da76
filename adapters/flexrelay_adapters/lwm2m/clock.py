"""A device's clock: resource 13 (Current Time) of its device object, whole seconds since 1970 UTC."""

from collections.abc import Callable
from typing import Final

from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.formats import FormatError
from flexrelay_adapters.lwm2m.formats.tlv import integer
from flexrelay_adapters.lwm2m.operations import Operations, Refused
from flexrelay_sdk import ClockState

CURRENT_TIME: Final = "/3/0/13"


async def set_clock(operations: Operations, peer: Peer, content_format: int, clock: Callable[[], float]) -> ClockState:
    """Read the clock, set it to `clock` (UTC seconds). Raises NoAnswer."""
    offset_ms: int | None = None
    try:
        (record,) = await operations.read(peer, CURRENT_TIME, content_format)
        value = integer(record.value) if isinstance(record.value, bytes) else record.value
        if isinstance(value, int | float):
            offset_ms = round((value - clock()) * 1000)
    except (Refused, FormatError, ValueError, OverflowError):
        pass
    try:
        await operations.write(peer, CURRENT_TIME, int(clock()), content_format)
    except Refused:
        return ClockState(offset_ms, False)
    return ClockState(offset_ms, True)
