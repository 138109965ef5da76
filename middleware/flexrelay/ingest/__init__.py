"""From frames to the journal: identify, decode, check the signature, validate, judge against the neighbours."""

from flexrelay.ingest.deadletters import Redriven, redrive
from flexrelay.ingest.native import NativeCodec, decode_signed
from flexrelay.ingest.pipeline import Ingest, Limits
from flexrelay.ingest.registers import History, HistoryUnavailable, NoHistory, RegisterChecks
from flexrelay.ingest.registry import Device, DeviceStatus, Enrolment, Registry, partition_of
from flexrelay.ingest.tail import Point
from flexrelay.ingest.verification import EntryInvalid, verify_entry

__all__ = [
    "Device",
    "DeviceStatus",
    "Enrolment",
    "EntryInvalid",
    "History",
    "HistoryUnavailable",
    "Ingest",
    "Limits",
    "NativeCodec",
    "NoHistory",
    "Point",
    "RegisterChecks",
    "Redriven",
    "Registry",
    "decode_signed",
    "partition_of",
    "redrive",
    "verify_entry",
]
