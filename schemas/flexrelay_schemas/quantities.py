"""Integer quantities that do not mix: adding watts to joules is a TypeError and a mypy error.

Sign: positive = withdrawal from the grid, positive money = credit. Inside contracts and wire documents quantities are
plain integers in fields whose names end with the unit (`_w`, `_j`, `_var`, `_micro_eur`, `_nano_eur_per_wh`).
"""

from dataclasses import dataclass
from typing import Self

JOULES_PER_WH = 3600


@dataclass(frozen=True, slots=True, order=True)
class _Quantity:
    value: int

    def __post_init__(self) -> None:
        if type(self.value) is not int:
            raise TypeError(f"{type(self).__name__} takes an int, not {type(self.value).__name__}")

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return type(self)(self.value + other.value)

    def __sub__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return type(self)(self.value - other.value)

    def __neg__(self) -> Self:
        return type(self)(-self.value)

    def __abs__(self) -> Self:
        return type(self)(abs(self.value))

    def __mul__(self, factor: int) -> Self:
        if type(factor) is not int:
            return NotImplemented
        return type(self)(self.value * factor)

    __rmul__ = __mul__

    def __int__(self) -> int:
        return self.value

    def __bool__(self) -> bool:
        return self.value != 0


class Watts(_Quantity):
    """Active power, average over its interval."""

    __slots__ = ()

    def over(self, seconds: int) -> "Joules":
        """The energy of this average power in an interval of `seconds`."""
        return Joules(self.value * seconds)


class Vars(_Quantity):
    """Reactive power."""

    __slots__ = ()


class Joules(_Quantity):
    """Energy in watt-seconds."""

    __slots__ = ()

    @classmethod
    def from_wh(cls, wh: int) -> "Joules":
        return cls(wh * JOULES_PER_WH)


class MicroEuro(_Quantity):
    """Money."""

    __slots__ = ()


class NanoEuroPerWh(_Quantity):
    """Price of energy; 1 €/MWh = 1000 n€/Wh."""

    __slots__ = ()

    def value_of(self, energy: Joules) -> MicroEuro:
        """price × energy, floored once to whole micro-euro (towards minus infinity)."""
        return MicroEuro(self.value * energy.value // (JOULES_PER_WH * 1000))
