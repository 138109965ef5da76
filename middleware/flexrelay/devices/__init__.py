"""The devices that a gateway has enrolled: name, kind, bindings to protocol credentials, who may receive them; and what
adapters found and nobody has enrolled yet; what devices tell of themselves."""

from flexrelay.devices.discovered import DISCOVERED, Discovered, Found, keep_discovering
from flexrelay.devices.enrolments import ENROLMENTS, DeviceRecord, Enrolments
from flexrelay.devices.facts import FACTS, Facts, keep_learning, learn

__all__ = [
    "DISCOVERED",
    "ENROLMENTS",
    "FACTS",
    "DeviceRecord",
    "Discovered",
    "Enrolments",
    "Facts",
    "Found",
    "keep_discovering",
    "keep_learning",
    "learn",
]
