"""One value of a source into one register: exact integer arithmetic, rounded half to even, never a binary fraction."""

import math
import struct
from decimal import Decimal
from typing import Any

from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.reading import CUMULATIVE, REGISTERS
from flexrelay_sdk.frame import DecodeError
from flexrelay_sdk.mapping.units import Unit, units_of

MAX_DIGITS = 40
"""Digits and exponent of a number that is taken."""


_NOISE = 1e-23
"""A float below is what a computation left over, not a value: nothing."""


class Conversion:
    """value × 10^scale × unit → the integer of `register`: `Conversion("import_j", "kWh").convert(Decimal("1.5"))`.

    `factor` is the whole-number factor, 0 when it is no whole number. `place` is named in errors. Raises ValueError
    for an unknown register or a unit that it cannot be given in.
    """

    __slots__ = ("_divisor", "_multiplier", "factor", "low", "place", "register")

    def __init__(self, register: str, unit: Unit, scale: int = 0, negate: bool = False, place: str = "") -> None:
        check_unit(register, unit)
        self.register = register
        self.place = place
        self.low = 0 if register in CUMULATIVE else -MAX_INTEGER
        self._multiplier = units_of(register)[unit] * (-1 if negate else 1) * 10 ** max(scale, 0)
        self._divisor = 10 ** max(-scale, 0)
        self.factor = self._multiplier if self._divisor == 1 else 0

    def convert(self, value: Any) -> int:
        """Takes int, Decimal and float (by its shortest decimal, see `shortest`); no texts, no truth values.

        Raises DecodeError: not_a_number, out_of_range.
        """
        kind = type(value)
        if kind is int:
            if value.bit_length() > 4 * MAX_DIGITS:
                raise DecodeError("out_of_range", f"register {self.register} is beyond 2^53 - 1", self.place)
            result = half_even(value * self._multiplier, self._divisor)
        elif kind is Decimal or kind is float:
            exact = value if kind is Decimal else shortest(value if not abs(value) < _NOISE else 0.0, self.place)
            result = scaled(exact, self._multiplier, self.place, self._divisor)
        else:
            raise DecodeError("not_a_number", f"register {self.register} is {_kind(value)}", self.place)
        if not -MAX_INTEGER <= result <= MAX_INTEGER:
            raise DecodeError("out_of_range", f"register {self.register} is beyond 2^53 - 1", self.place)
        if result < self.low:
            raise DecodeError("out_of_range", f"register {self.register} is negative", self.place)
        return result


def check_unit(register: str, unit: str) -> None:
    """Raises ValueError for an unknown register or a unit that it cannot be given in."""
    if register not in REGISTERS:
        raise ValueError(f"unknown register {register!r}; known are {', '.join(sorted(REGISTERS))}")
    units = units_of(register)
    if unit not in units:
        raise ValueError(f"register {register} cannot be given in {unit}; use one of {', '.join(units)}")


def shortest(value: float, place: str = "") -> Decimal:
    """The shortest decimal that gives this double: what the source wrote. Raises DecodeError for NaN and infinity."""
    if not math.isfinite(value):
        raise DecodeError("not_a_number", f"{value} is no measured value", place)
    return Decimal(repr(value))


def shortest_single(value: float, place: str = "") -> Decimal:
    """The shortest decimal that gives this single-precision number (unpacked from 4 bytes): 0.1, not 0.10000000149."""
    if not math.isfinite(value):
        raise DecodeError("not_a_number", f"{value} is no measured value", place)
    packed = struct.pack("<f", value)
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        try:
            if struct.pack("<f", float(text)) == packed:
                return Decimal(text)
        except OverflowError:  # rounded up beyond the greatest single
            continue
    return Decimal(f"{value:.9g}")


def scaled(value: Decimal, factor: int, place: str, divisor: int = 1) -> int:
    """value × factor / divisor, exactly, rounded half to even. Raises DecodeError for exponents beyond MAX_DIGITS."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > MAX_DIGITS or len(digits) > MAX_DIGITS:
        raise DecodeError("out_of_range", "exponent out of range", place)
    number = int("".join(map(str, digits))) * factor * (-1 if sign else 1)
    if exponent >= 0:
        return half_even(number * 10**exponent, divisor)
    return half_even(number, divisor * 10**-exponent)


def half_even(number: int, divisor: int) -> int:
    whole, rest = divmod(number, divisor)
    if rest * 2 > divisor or (rest * 2 == divisor and whole % 2):
        return whole + 1
    return whole


def _kind(value: Any) -> str:
    names = {str: "text", bool: "true or false", list: "a list", dict: "an object", type(None): "nothing"}
    return names.get(type(value), "nothing known")
