"""The embedded ledger keeps every promise of the port."""

from conformance.ledger.embedded import EmbeddedHarness
from conformance.ledger.promises import LedgerPromises


class TestEmbeddedLedger(LedgerPromises):
    harness = EmbeddedHarness()
