"""The devices that a gateway has enrolled: name, kind, bindings to protocol credentials, who may receive them; and what
adapters found and nobody has enrolled yet."""

from flexrelay.devices.discovered import DISCOVERED, Discovered, Found, keep_discovering
from flexrelay.devices.enrolments import ENROLMENTS, DeviceRecord, Enrolments

__all__ = ["DISCOVERED", "ENROLMENTS", "DeviceRecord", "Discovered", "Enrolments", "Found", "keep_discovering"]
