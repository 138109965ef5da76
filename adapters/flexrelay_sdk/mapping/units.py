"""Units that sources give their values in, as whole multiples of the register's own integer unit."""

from typing import Final, Literal

Unit = Literal[
    "J", "kJ", "MJ", "GJ", "Wh", "kWh", "MWh", "W", "kW", "MW", "var", "kvar", "mV", "V", "kV", "mA", "A",
    "permille", "%", "ratio",
]  # fmt: skip
"""`ratio` is a fraction of one. Parts of these (mW, mWh) are the next larger unit with a negative `scale`."""

UNITS: Final[dict[str, dict[str, int]]] = {
    "j": {
        "J": 1,
        "kJ": 10**3,
        "MJ": 10**6,
        "GJ": 10**9,
        "Wh": 3600,
        "kWh": 3600 * 10**3,
        "MWh": 3600 * 10**6,
    },
    "w": {"W": 1, "kW": 10**3, "MW": 10**6},
    "var": {"var": 1, "kvar": 10**3},
    "mv": {"mV": 1, "V": 10**3, "kV": 10**6},
    "ma": {"mA": 1, "A": 10**3},
    "permille": {"permille": 1, "%": 10, "ratio": 1000},
}
"""Last part of a register's name → units it can be given in, as multiples of the register's own."""


def units_of(register: str) -> dict[str, int]:
    """The units that a register of `flexrelay_schemas.reading.REGISTERS` can be given in."""
    return UNITS[register.rsplit("_", 1)[1]]
