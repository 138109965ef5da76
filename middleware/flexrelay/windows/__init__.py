"""Windows and anchors: how readings become evidence under a root on the ledger, and the proofs of it."""

from flexrelay.windows.anchoring import Anchoring
from flexrelay.windows.calendar import Calendar
from flexrelay.windows.proof import BadProof, NoProof, Prover, Tampered, check_proof
from flexrelay.windows.schema import WINDOWS
from flexrelay.windows.vault import Erased, Vault
from flexrelay.windows.windows import ANCHOR, Anchor, Closed, Windows

__all__ = [
    "ANCHOR",
    "WINDOWS",
    "Anchor",
    "Anchoring",
    "BadProof",
    "Calendar",
    "Closed",
    "Erased",
    "NoProof",
    "Prover",
    "Tampered",
    "Vault",
    "Windows",
    "check_proof",
]
