"""The energy objects of the OMA LwM2M registry as data: which resource is which register, in which unit.

Identifiers, types and units are those of the registry's definitions (3305, 3331, 3316–3318, 3328, 3329, 3310, 3312 by
IPSO; 3411, 3421, 3422 by uCIFI; 10242, 10243). Registers are those of `flexrelay_schemas.reading`. Resources without
one (frequency, power factor, one phase of three) stay in the frame and are no measurement.
"""

from typing import Final, NamedTuple

SENSOR_UNITS: Final = 5701
"""Resource with the unit of an IPSO sensor's value, in the same object instance."""

UNITS: Final[dict[str, tuple[str, int, int]]] = {
    "W": ("w", 1, 1),
    "kW": ("w", 1000, 1),
    "MW": ("w", 10**6, 1),
    "mW": ("w", 1, 1000),
    "Wh": ("j", 3600, 1),
    "W*h": ("j", 3600, 1),
    "kWh": ("j", 3600 * 1000, 1),
    "kW*h": ("j", 3600 * 1000, 1),
    "MWh": ("j", 3600 * 10**6, 1),
    "J": ("j", 1, 1),
    "kJ": ("j", 1000, 1),
    "MJ": ("j", 10**6, 1),
    "Ws": ("j", 1, 1),
    "var": ("var", 1, 1),
    "VAr": ("var", 1, 1),
    "kvar": ("var", 1000, 1),
    "V": ("mv", 1000, 1),
    "mV": ("mv", 1, 1),
    "kV": ("mv", 10**6, 1),
    "A": ("ma", 1000, 1),
    "mA": ("ma", 1, 1),
    "%": ("permille", 10, 1),
    "/100": ("permille", 10, 1),
    "%EL": ("permille", 10, 1),
    "/": ("permille", 1000, 1),
}
"""Unit as SenML (RFC 8428 §12.1, RFC 8798) or the registry writes it → (kind, numerator, denominator) to the
register's own unit, which is the last part of its name."""


class Quantity(NamedTuple):
    """`rank`: of two resources for one register at one instant the lower one counts. `export`: what it counts flows
    into the grid, so it is taken from what flows out of it (`power_w` = import − export)."""

    register: str
    unit: str
    rank: int = 0
    export: bool = False


QUANTITIES: Final[dict[tuple[int, int], Quantity]] = {
    (3421, 23): Quantity("power_w", "W", 0),  # net active power
    (3421, 16): Quantity("power_w", "W", 1),
    (3421, 17): Quantity("power_w", "W", 1, export=True),
    (3421, 18): Quantity("reactive_var", "var", 1),
    (3421, 19): Quantity("reactive_var", "var", 1, export=True),
    (3421, 25): Quantity("import_j", "Wh"),
    (3421, 26): Quantity("export_j", "Wh"),
    (3421, 1): Quantity("voltage_mv", "V"),
    (3421, 6): Quantity("current_ma", "A"),
    (3422, 15): Quantity("power_w", "W", 0),  # net active power
    (3422, 8): Quantity("power_w", "W", 1),
    (3422, 9): Quantity("power_w", "W", 1, export=True),
    (3422, 10): Quantity("reactive_var", "var", 1),
    (3422, 11): Quantity("reactive_var", "var", 1, export=True),
    (3422, 17): Quantity("import_j", "Wh"),
    (3422, 18): Quantity("export_j", "Wh"),
    (3422, 4): Quantity("current_ma", "A"),
    (10242, 34): Quantity("power_w", "kW", 2),
    (10242, 35): Quantity("reactive_var", "kvar", 2),
    (10242, 41): Quantity("import_j", "kWh", 2),
    (10243, 6): Quantity("power_w", "kW", 3),
    (10243, 7): Quantity("reactive_var", "kvar", 3),
    (10243, 14): Quantity("import_j", "kWh", 3),
    (10243, 4): Quantity("voltage_mv", "V", 3),
    (10243, 5): Quantity("current_ma", "A", 3),
    (3305, 5800): Quantity("power_w", "W", 4),
    (3305, 5810): Quantity("reactive_var", "var", 4),
    (3305, 5805): Quantity("import_j", "Wh", 4),
    (3328, 5700): Quantity("power_w", "W", 5),
    (3331, 5700): Quantity("import_j", "Wh", 5),
    (3331, 5805): Quantity("import_j", "Wh", 5),  # not of the registry; common in older firmware
    (3316, 5700): Quantity("voltage_mv", "V", 5),
    (3317, 5700): Quantity("current_ma", "A", 5),
    (3312, 5805): Quantity("import_j", "Wh", 6),
    (3411, 1): Quantity("soc_permille", "/100"),
}
"""(object, resource) → what it measures. A whole meter counts before its parts."""

OBSERVED: Final = (3421, 3422, 10242, 10243, 3305, 3328, 3331, 3316, 3317, 3318, 3329, 3411)
"""Objects with readings, as they are observed where nothing else is configured."""

FLOAT: Final = frozenset(
    {(3318, 5700), (3329, 5700), (3305, 5820), (3312, 5820), (3421, 11), (3421, 13), (3422, 5), (10242, 49)}
    | {(obj, res) for obj, res in QUANTITIES if (obj, res) not in {(3411, 1), (10243, 4)}}
)
"""Resources whose TLV bytes are a float; the ones of 10243/4 are text, of 3411/1 an integer."""

TEXTS: Final = frozenset({(10243, 4)})
"""Measured values that the registry declares as text."""
