"""What a device says of itself in its device object (3): maker, model, serial number, firmware, battery level."""

from typing import Final

from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.formats import FormatError, Path, Record
from flexrelay_adapters.lwm2m.formats.tlv import integer
from flexrelay_adapters.lwm2m.operations import Operations
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import cleaned

DEVICE: Final[Path] = (3, 0)
_TEXTS: Final = {0: "manufacturer", 1: "model", 2: "serial", 3: "firmware"}
_BATTERY: Final = 9
"""In percent."""


def has_nameplate(objects: tuple[Path, ...]) -> bool:
    """Whether a device has told, registering, that it has the device object's instance."""
    return DEVICE in objects or DEVICE[:1] in objects


async def read_nameplate(operations: Operations, peer: Peer, content_format: int) -> DeviceFacts:
    """Read the object. Raises NoAnswer, Refused, FormatError."""
    return facts_of(await operations.read(peer, "/3/0", content_format))


def facts_of(records: list[Record]) -> DeviceFacts:
    """What is wrong in it is left out: the device wrote it."""
    told: dict[str, str] = {}
    battery: int | None = None
    for path, value, _, _ in records:
        if len(path) != 3 or path[:2] != DEVICE:
            continue
        if path[2] == _BATTERY:
            try:
                percent = integer(value) if isinstance(value, bytes) else value
            except FormatError:
                continue
            battery = percent * 10 if type(percent) is int else None
        elif path[2] in _TEXTS and isinstance(value, str | bytes):
            told[_TEXTS[path[2]]] = value if isinstance(value, str) else value.decode(errors="replace")
    return cleaned(DeviceFacts(**told, battery_permille=battery))
