"""Numbers in registers: types, word and byte order, and the values that mean "there is none"."""

import math
import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal, NamedTuple

ValueType = Literal["u16", "s16", "u32", "s32", "u64", "s64", "float32", "float64"]
Order = Literal["big", "little"]
Table = Literal["holding", "input"]

_CODES: Final[dict[ValueType, str]] = {
    "u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q", "float32": "f", "float64": "d",
}  # fmt: skip
_RANGES: Final[dict[str, tuple[int, int]]] = {
    code: (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if code.islower() else (0, (1 << 8 * size) - 1)
    for code, size in (("H", 2), ("h", 2), ("I", 4), ("i", 4), ("Q", 8), ("q", 8))
}


class Span(NamedTuple):
    """Registers that belong together; never torn apart over two requests."""

    table: Table
    address: int
    size: int
    """Registers."""

    @property
    def end(self) -> int:
        return self.address + self.size


def registers_of(kind: ValueType) -> int:
    """How many registers a value takes."""
    return struct.calcsize(">" + _CODES[kind]) // 2


class Format:
    """How one number stands in registers. `absent` are the raw values that mean "not implemented"; NaN always does."""

    __slots__ = ("_absent", "_bytes", "_code", "_real", "_struct", "_words", "kind", "size")

    def __init__(
        self, kind: ValueType, words: Order = "big", bytes_: Order = "big", absent: Sequence[int] = ()
    ) -> None:
        self.kind = kind
        self._code = _CODES[kind]
        self._struct = struct.Struct(("<" if words == bytes_ == "little" else ">") + self._code)
        self.size = self._struct.size // 2
        self._words, self._bytes = words, bytes_
        self._absent = frozenset(absent)
        self._real = kind in ("float32", "float64")

    def read(self, data: bytes, offset: int) -> int | float | None:
        """The number at a byte offset; None where it means that there is none."""
        if self._words == self._bytes:
            value = self._struct.unpack_from(data, offset)[0]
        else:
            value = self._struct.unpack(self._turned(data[offset : offset + 2 * self.size]))[0]
        if self._real:
            return None if math.isnan(value) else value
        return None if value in self._absent else value

    def registers(self, value: int | Decimal) -> list[int]:
        """The registers that hold a number, whole numbers rounded half to even. Raises ValueError when they cannot."""
        if self._real:
            data = self._struct.pack(float(value))
        else:
            whole = int(Decimal(value).to_integral_value())
            low, high = _RANGES[self._code]
            if not low <= whole <= high or whole in self._absent:
                raise ValueError(f"{whole} is no {self.kind}")
            data = self._struct.pack(whole)
        if self._words != self._bytes:
            data = self._turned(data)
        return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]

    def _turned(self, data: bytes) -> bytes:
        """Between big-endian and an order whose words and bytes differ; the same both ways."""
        words = [data[at : at + 2] for at in range(0, len(data), 2)]
        return b"".join(words[::-1] if self._words == "little" else [word[::-1] for word in words])
