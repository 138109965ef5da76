"""The facts of the SunSpec information models: `points.csv`, read when first asked for."""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from flexrelay_adapters.modbus.values import Format, Span, ValueType

# type → (as a number, the value that says "not implemented"), SunSpec Information Model Specification
_TYPES: Final[dict[str, tuple[ValueType, tuple[int, ...]]]] = {
    "int16": ("s16", (-0x8000,)),
    "uint16": ("u16", (0xFFFF,)),
    "count": ("u16", ()),
    "enum16": ("u16", (0xFFFF,)),
    "bitfield16": ("u16", (0xFFFF,)),
    "sunssf": ("s16", (-0x8000,)),
    "int32": ("s32", (-0x8000_0000,)),
    "uint32": ("u32", (0xFFFF_FFFF,)),
    "bitfield32": ("u32", (0xFFFF_FFFF,)),
    "acc32": ("u32", (0,)),
    "uint64": ("u64", (0xFFFF_FFFF_FFFF_FFFF,)),
    "acc64": ("u64", (0,)),
    "float32": ("float32", ()),
}
MAX_EXPONENT: Final = 10
"""Scale factors are -10 … 10."""


class Point(NamedTuple):
    """`offset` from the model's ID register (of a repeating group: from its repetition's begin), in registers. `scale`
    names another point, or is a power of ten, or empty."""

    model: int
    name: str
    offset: int
    type: str
    size: int
    scale: str
    unit: str
    writable: bool

    @property
    def format(self) -> Format:
        """Raises ValueError for texts."""
        known = _TYPES.get(self.type)
        if known is None:
            raise ValueError(f"point {self.name} of model {self.model} is no number but {self.type}")
        return Format(known[0], absent=known[1])

    @property
    def absent(self) -> bytes:
        """What its registers hold when the device does not implement it."""
        if self.type == "float32":
            return b"\x7f\xc0\0\0"
        absent = _TYPES[self.type][1] if self.type in _TYPES else ()
        value = absent[0] if absent else 0
        return value.to_bytes(2 * self.size, "big", signed=value < 0)

    def span(self, address: int) -> Span:
        """Where it is when the model begins at `address`."""
        return Span("holding", address + self.offset, self.size)


@cache
def _models() -> Mapping[int, Mapping[str, Point]]:
    models: dict[int, dict[str, Point]] = {}
    with (files(__package__) / "points.csv").open(encoding="utf-8") as file:
        for row in csv.reader(line for line in file if not line.startswith("#")):
            model, name, offset, kind, size, scale, unit, access = (cell.strip() for cell in row)
            found = Point(int(model), name, int(offset), kind, int(size), scale, unit, access == "RW")
            models.setdefault(found.model, {})[name] = found
    return models


def points(model: int) -> Mapping[str, Point]:
    """A model's points by name; empty for a model that is not known."""
    return _models().get(model, {})


def point(model: int, name: str) -> Point:
    """Raises KeyError."""
    return _models()[model][name]


def MODELS_KNOWN() -> tuple[int, ...]:  # noqa: N802  # read as the constant that it is, made when first asked for
    """The models whose points are known."""
    return tuple(sorted(_models()))
