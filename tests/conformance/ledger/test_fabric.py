"""Hyperledger Fabric keeps every promise of the port."""

from collections.abc import Iterator

import pytest
from conformance.ledger.fabric import FabricHarness
from conformance.ledger.promises import LedgerPromises


class TestFabricLedger(LedgerPromises):
    harness = FabricHarness()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _ended(cls) -> Iterator[None]:
        yield
        cls.harness.stop()
