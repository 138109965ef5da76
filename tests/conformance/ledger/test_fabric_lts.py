"""Hyperledger Fabric 2.5, the LTS, keeps every promise of the port as well: no write batch there, no multi-get."""

from collections.abc import Iterator

import pytest
from conformance.ledger.fabric import FabricHarness
from conformance.ledger.promises import LedgerPromises

pytestmark = pytest.mark.timeout(1200)


class TestFabricLtsLedger(LedgerPromises):
    harness = FabricHarness(fabric="2.5", consensus="raft", orderers=1)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _ended(cls) -> Iterator[None]:
        yield
        cls.harness.stop()
