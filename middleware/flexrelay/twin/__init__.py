"""The twin: every device's newest state and history as smart data models, and energy from its registers."""

from flexrelay.twin.energy import MAX_GAP_MS, Energy, Exchange, Registers, energy, register_at
from flexrelay.twin.history import TwinHistory
from flexrelay.twin.schema import TWIN
from flexrelay.twin.twin import Describe, Twin

__all__ = [
    "MAX_GAP_MS",
    "TWIN",
    "Describe",
    "Energy",
    "Exchange",
    "Registers",
    "Twin",
    "TwinHistory",
    "energy",
    "register_at",
]
