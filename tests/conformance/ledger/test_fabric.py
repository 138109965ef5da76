"""Hyperledger Fabric keeps every promise of the port.

FLEXRELAY_TEST_FABRIC = "3.1" | "2.5" and FLEXRELAY_TEST_CONSENSUS = "raft" | "bft" (3.1 only) choose the network.
"""

import os
from collections.abc import Iterator

import pytest
from conformance.ledger.fabric import FabricHarness
from conformance.ledger.promises import LedgerPromises


CONSENSUS = os.environ.get("FLEXRELAY_TEST_CONSENSUS", "raft")


class TestFabricLedger(LedgerPromises):
    harness = FabricHarness(
        fabric=os.environ.get("FLEXRELAY_TEST_FABRIC", "3.1"),
        consensus=CONSENSUS,
        orderers=4 if CONSENSUS == "bft" else 1,
    )

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _ended(cls) -> Iterator[None]:
        yield
        cls.harness.stop()
