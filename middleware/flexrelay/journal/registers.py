"""Registers as bytes: a bit mask of the names, then one signed 64-bit integer a name in the mask's order.

Two sets of registers are equal exactly when their bytes are. The bits never change their meaning; a new register
takes the next free bit.
"""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Final

from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.reading import REGISTERS

NAMES: Final = ("import_j", "export_j", "power_w", "reactive_var", "voltage_mv", "current_ma", "soc_permille")
"""The name of each bit, from the lowest."""

_BITS: Final = {name: 1 << bit for bit, name in enumerate(NAMES)}
_MASK: Final = struct.Struct("<H")
_CUMULATIVE: Final = 3  # the bits of import_j and export_j: their values come first

_LEAST: Final = -MAX_INTEGER

Packer = Callable[..., bytes]
Values = Callable[[Mapping[str, int]], tuple[int, ...]]


class InvalidRegisters(ValueError):
    """`field` is the register that is wrong, `reason` a short code."""

    def __init__(self, reason: str, message: str, field: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


def pack_registers(registers: Mapping[str, int]) -> bytes:
    """The bytes of `registers`. Raises InvalidRegisters: unknown name, no integer, out of ±(2^53 - 1), negative."""
    names, values_of, pack, mask, cumulatives = _by_names(tuple(registers))
    values = values_of(registers)
    for value in values:
        if type(value) is not int or not _LEAST <= value <= MAX_INTEGER:
            name = names[next(place for place, item in enumerate(values) if item is value)]
            raise InvalidRegisters("invalid_value", f"{name} must be an integer within ±(2^53 - 1)", name)
    for index in cumulatives:
        if values[index] < 0:
            raise InvalidRegisters("invalid_value", f"register {names[index]} is negative", names[index])
    return pack(mask, *values)


def unpack_registers(data: bytes, offset: int = 0) -> tuple[dict[str, int], int]:
    """(registers, offset after them). Raises ValueError for bytes that are none."""
    try:
        (mask,) = _MASK.unpack_from(data, offset)
        layout, names = _by_mask(mask)
        values = layout.unpack_from(data, offset + 2)
    except struct.error:
        raise ValueError(f"registers are cut off at byte {offset}") from None
    return dict(zip(names, values, strict=True)), offset + 2 + layout.size


REGISTERS_SIZE: Final = tuple(2 + 8 * mask.bit_count() for mask in range(256))
"""The number of bytes of packed registers by their first byte (the names fit one byte so far)."""

_PAIR: Final = struct.Struct("<qq")
_ONE: Final = struct.Struct("<q")


def cumulative(packed: bytes) -> tuple[int | None, int | None]:
    """(import_j, export_j) of packed registers, None for one that is not there."""
    which = packed[0] & _CUMULATIVE
    if which == _CUMULATIVE:
        imported, exported = _PAIR.unpack_from(packed, 2)
        return imported, exported
    if which == 1:
        return _ONE.unpack_from(packed, 2)[0], None
    if which == 2:
        return None, _ONE.unpack_from(packed, 2)[0]
    return None, None


@lru_cache(maxsize=4096)
def _by_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], Values, Packer, int, range]:
    if not names:
        raise InvalidRegisters("no_registers", "a reading needs at least one register", "registers")
    mask = 0
    for name in names:
        bit = _BITS.get(name)
        if bit is None:
            known = ", ".join(sorted(REGISTERS))
            raise InvalidRegisters("unknown_register", f"unknown register {name[:40]!r}; known are {known}", name[:40])
        mask |= bit
    ordered = tuple(name for name in NAMES if name in names)
    pack = struct.Struct("<H" + "q" * len(ordered)).pack
    return ordered, _values_of(ordered), pack, mask, range((mask & _CUMULATIVE).bit_count())


def _values_of(names: tuple[str, ...]) -> Values:
    """One call of C code for all values: this is done for every reading."""
    if len(names) == 1:  # where itemgetter gives the bare value
        (name,) = names
        return lambda registers: (registers[name],)
    return itemgetter(*names)


@lru_cache(maxsize=4096)
def _by_mask(mask: int) -> tuple[struct.Struct, tuple[str, ...]]:
    if not 0 < mask < 1 << len(NAMES):
        raise ValueError(f"register mask {mask:#x} is not known here")
    names = tuple(name for bit, name in enumerate(NAMES) if mask >> bit & 1)
    return struct.Struct("<" + "q" * len(names)), names
