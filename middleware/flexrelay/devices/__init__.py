"""The devices that a gateway has enrolled: name, kind, bindings to protocol credentials, who may receive them; and what
adapters found and nobody has enrolled yet; what devices tell of themselves; which of their readings are missing."""

from flexrelay.devices.bindings import channels, credentials_at
from flexrelay.devices.discovered import DISCOVERED, Discovered, Found, keep_discovering
from flexrelay.devices.enrolments import ENROLMENTS, DeviceRecord, Enrolments
from flexrelay.devices.facts import FACTS, Facts, keep_learning, learn
from flexrelay.devices.gaps import GAPS, GapFilling, Gaps
from flexrelay.devices.history import Filled, HistoryRefused, Stretch, fill

__all__ = [
    "DISCOVERED",
    "ENROLMENTS",
    "FACTS",
    "GAPS",
    "DeviceRecord",
    "Discovered",
    "Enrolments",
    "Facts",
    "Filled",
    "Found",
    "GapFilling",
    "Gaps",
    "HistoryRefused",
    "Stretch",
    "channels",
    "credentials_at",
    "fill",
    "keep_discovering",
    "keep_learning",
    "learn",
]
