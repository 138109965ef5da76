"""Registers of a SunSpec device, laid out from the models' published facts: marker, models, end."""

from collections.abc import Mapping, Sequence
from typing import Final

from flexrelay_adapters.modbus.sunspec.models import Point, points

BASE: Final = 40_000
LENGTHS: Final[Mapping[int, int]] = {1: 66, 123: 24, 203: 105, 701: 153, 702: 50, 704: 65, 713: 7}
"""Registers of a model after its ID and length."""
_END: Final = (0xFFFF, 0)
_PAD: Final = 0x8000


class Layout:
    """What a device holds, by point. Points that were never set say that they are not implemented."""

    def __init__(self, models: Sequence[int]) -> None:
        self.registers = [int.from_bytes(b"Su", "big"), int.from_bytes(b"nS", "big")]
        self._places: dict[int, int] = {}
        self._points: list[tuple[int, Point]] = []
        """(Index of the first register, point), ascending."""
        for model in models:
            begin = len(self.registers)
            self._places[model] = begin
            self.registers += [model, LENGTHS[model], *[_PAD] * LENGTHS[model]]
            for name, each in sorted(points(model).items(), key=lambda item: item[1].offset):
                if "." not in name:
                    self._points.append((begin + each.offset, each))
                    self._put(begin + each.offset, each.size, each.absent)
        self.registers += _END

    def set(self, model: int, name: str, value: int | str) -> None:
        """The number as it stands in the registers, without its scale factor. Raises OverflowError."""
        each = points(model)[name]
        at = self._places[model] + each.offset
        if isinstance(value, str):
            data = value.encode().ljust(2 * each.size, b"\0")[: 2 * each.size]
        else:
            signed = each.type in ("int16", "int32", "sunssf")
            data = value.to_bytes(2 * each.size, "big", signed=signed)
        self._put(at, each.size, data)

    def get(self, model: int, name: str) -> int | None:
        """None: the device has no such model, or does not implement the point."""
        if model not in self._places:
            return None
        each = points(model)[name]
        at = self._places[model] + each.offset
        data = b"".join(register.to_bytes(2, "big") for register in self.registers[at : at + each.size])
        value = each.format.read(data, 0)
        return None if value is None else int(value)

    def touched(self, address: int, count: int) -> list[Point]:
        """The points of which a register lies there (address as on the wire)."""
        begin = address - BASE
        return [each for at, each in self._points if at < begin + count and begin < at + each.size]

    def write(self, address: int, values: Sequence[int]) -> None:
        self.registers[address - BASE : address - BASE + len(values)] = values

    def _put(self, at: int, size: int, data: bytes) -> None:
        self.registers[at : at + size] = [int.from_bytes(data[n : n + 2], "big") for n in range(0, 2 * size, 2)]
