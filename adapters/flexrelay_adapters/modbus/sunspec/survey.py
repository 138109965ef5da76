"""What a SunSpec device has: the marker, the chain of models, and who it is (model 1)."""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from flexrelay_adapters.modbus.frame import NOWHERE, Found
from flexrelay_adapters.modbus.refusals import Refused
from flexrelay_adapters.modbus.sunspec.models import point
from flexrelay_adapters.modbus.values import Span

BASES: Final = (40_000, 0, 50_000)
"""Where the marker may stand."""
MARKER: Final = b"SunS"
MAX_MODELS: Final = 100
_END: Final = 0xFFFF
_COMMON: Final = 1

Read = Callable[[Span], Awaitable[bytes]]


class NoSunSpec(ValueError):
    """The device has no SunSpec marker where one may be, or its chain of models cannot be followed."""


class Survey(NamedTuple):
    """`serial_at` is NOWHERE when the device has no model 1; `version` is that of its firmware, "" where it does not
    say."""

    models: tuple[Found, ...]
    manufacturer: str
    model: str
    serial: str
    serial_at: Span
    version: str = ""


def text_of(data: bytes) -> str:
    """A SunSpec string: padded with NUL, by some with blanks."""
    return data.partition(b"\0")[0].decode("utf-8", "replace").strip()


async def survey(read: Read) -> Survey:
    """Follow the chain. Raises NoSunSpec, and what `read` raises but for refused addresses."""
    base = await _base(read)
    models: list[Found] = []
    address = base + 2
    while True:
        try:
            header = await read(Span("holding", address, 2))
        except Refused as error:
            if error.transient or not models:
                raise
            break  # some devices end without the end model
        number, length = int.from_bytes(header[:2], "big"), int.from_bytes(header[2:], "big")
        if number == _END:
            break
        if len(models) >= MAX_MODELS or address + 2 + length > 0xFFFF or (number == 0 and length == 0):
            raise NoSunSpec(
                f"the chain of models is broken at register {address}: model {number} of {length} registers"
            )
        models.append(Found(number, address, length))
        address += 2 + length
    common = next((found for found in models if found.model == _COMMON), None)
    if common is None:
        return Survey(tuple(models), "", "", "", NOWHERE)
    texts = []
    for name in ("Mn", "Md", "SN"):
        texts.append(text_of(await read(point(_COMMON, name).span(common.address))))
    try:
        version = text_of(await read(point(_COMMON, "Vr").span(common.address)))
    except Refused as error:
        if error.transient:
            raise
        version = ""  # it may be left out, and some devices refuse what they do not have
    serial_at = point(_COMMON, "SN").span(common.address)
    return Survey(tuple(models), texts[0], texts[1], texts[2], serial_at, version)


async def _base(read: Read) -> int:
    for base in BASES:
        try:
            if await read(Span("holding", base, 2)) == MARKER:
                return base
        except Refused as error:
            if error.transient:
                raise
    raise NoSunSpec(f"there is no SunSpec marker at {', '.join(map(str, BASES))}: is it the right unit?")
