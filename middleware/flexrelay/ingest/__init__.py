"""From frames to the journal: identify, decode, check the signature, validate, judge against the neighbours."""

from flexrelay.ingest.native import NativeCodec, decode_signed
from flexrelay.ingest.pipeline import Ingest, Limits
from flexrelay.ingest.registers import History, NoHistory, Point, RegisterChecks
from flexrelay.ingest.registry import Device, DeviceStatus, Enrolment, Registry, partition_of

__all__ = [
    "Device",
    "DeviceStatus",
    "Enrolment",
    "History",
    "Ingest",
    "Limits",
    "NativeCodec",
    "NoHistory",
    "Point",
    "RegisterChecks",
    "Registry",
    "decode_signed",
    "partition_of",
]
