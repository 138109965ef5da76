"""The embedded ledger: Fabric's semantics in one process and one folder.

For development, tests and a single operator, who executes and attests for every organisation. It is hash-chained,
fsynced and crash-safe, and as strict as Fabric: reads of the committed state, versions and phantoms checked at commit.

    async with EmbeddedLedger.open(folder, genesis) as ledger:
        gateway = ledger.connect("DSO", signer)   # the ledger port
"""

from flexrelay.ledger.embedded.errors import GenesisMismatch, LedgerCorrupt, LedgerLocked
from flexrelay.ledger.embedded.genesis import BlockCutting, EndorsementPolicy, Genesis, Organisation
from flexrelay.ledger.embedded.identity import key_identifier
from flexrelay.ledger.embedded.ledger import Connection, EmbeddedLedger
from flexrelay.ledger.embedded.recovery import Recovery
from flexrelay.ledger.embedded.verify import Problem, Report, verify

__all__ = [
    "BlockCutting",
    "Connection",
    "EmbeddedLedger",
    "EndorsementPolicy",
    "Genesis",
    "GenesisMismatch",
    "LedgerCorrupt",
    "LedgerLocked",
    "Organisation",
    "Problem",
    "Recovery",
    "Report",
    "key_identifier",
    "verify",
]
