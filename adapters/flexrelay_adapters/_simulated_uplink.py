"""The uplink of simulated devices that have few bytes (LoRaWAN, Sigfox), and how an adapter reads it.

Energies in whole Wh, the power in W. It is written here once more, without the adapters' code, so that both do not
share a mistake.
"""

from collections.abc import Mapping
from typing import Any, Final

LENGTH: Final = 11
FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "imported": {"offset": 0, "length": 4},
    "exported": {"offset": 4, "length": 4},
    "power": {"offset": 8, "length": 3, "type": "int"},
}
REGISTERS: Final[Mapping[str, Mapping[str, str]]] = {
    "import_j": {"pointer": "/imported", "unit": "Wh"},
    "export_j": {"pointer": "/exported", "unit": "Wh"},
    "power_w": {"pointer": "/power", "unit": "W"},
}


def uplink(registers: Mapping[str, int]) -> bytes:
    """Energies count modulo 2³² Wh; a power beyond three bytes is told as the most that they hold."""
    power_w = max(-(2**23), min(2**23 - 1, registers["power_w"]))
    energies = b"".join((registers[name] // 3600 % 2**32).to_bytes(4, "big") for name in ("import_j", "export_j"))
    return energies + power_w.to_bytes(3, "big", signed=True)
