"""The devices that a gateway has enrolled: name, kind, bindings to protocol credentials, who may receive them."""

from flexrelay.devices.enrolments import ENROLMENTS, DeviceRecord, Enrolments

__all__ = ["ENROLMENTS", "DeviceRecord", "Enrolments"]
