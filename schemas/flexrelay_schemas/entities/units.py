"""From integer base units to the units of the smart data models, and back, without binary noise.

A JSON number here is the float nearest to the exact decimal: up to 15 significant digits its shortest text *is* that
decimal (12345 W is 12.345 kW, never 12.345000000000001). Joules have no finite decimal in kWh; they are rounded to
nano-kWh (3.6 mJ), so that the integer joules come back exactly. `exact` gives the decimal itself.
"""

from dataclasses import dataclass
from decimal import Decimal

_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Conversion:
    """`value / divisor` in the unit with UN/CEFACT code `unit_code`; joules to kWh when `divisor` is 3,600,000."""

    unit_code: str
    divisor: int = 1

    def number(self, value: int) -> int | float:
        """The JSON number for an integer in base units."""
        divisor = self.divisor
        if divisor == 1:
            return value
        if divisor == _JOULES_PER_KWH:
            return (value * 5000 + 9) // 18 / _NANO  # value · 10⁹ / 3.6·10⁶, rounded to an integer of nano-kWh
        return value / divisor

    def exact(self, value: int) -> Decimal:
        """The decimal that `number` stands for."""
        if self.divisor == _JOULES_PER_KWH:
            return Decimal((value * 5000 + 9) // 18).scaleb(-9)
        return Decimal(value) / self.divisor

    def base(self, number: int | float | Decimal) -> int:
        """The integer in base units that `number` came from (exact up to 10^15). Raises ValueError for NaN, inf."""
        exact = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
        if not exact.is_finite():
            raise ValueError(f"{number} is not a finite number")
        return int((exact * self.divisor).to_integral_value())


_JOULES_PER_KWH = 3_600_000

WATT = Conversion("WTT")
KILOWATT = Conversion("KWT", 1000)
KILOWATT_HOUR = Conversion("KWH", _JOULES_PER_KWH)
VAR = Conversion("D44")
KILOVAR = Conversion("K5", 1000)
VOLT = Conversion("VLT", 1000)
AMPERE = Conversion("AMP", 1000)
PERCENT = Conversion("P1", 10)
CELSIUS = Conversion("CEL", 1000)
"""From milli-degrees."""
