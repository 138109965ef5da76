"""The whole chain behind a number, by any of its ends: collected into one document, and verified."""

from flexrelay.custody.audit import Audit, AuditReport
from flexrelay.custody.check import Check, check_record, check_signature
from flexrelay.custody.custody import Custody, NoCustody
from flexrelay.custody.record import CustodyRecord

__all__ = ["Audit", "AuditReport", "Check", "Custody", "CustodyRecord", "NoCustody", "check_record", "check_signature"]
