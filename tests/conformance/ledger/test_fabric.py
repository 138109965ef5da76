"""Hyperledger Fabric keeps every promise of the port.

FLEXRELAY_TEST_FABRIC = "3.1" | "2.5" and FLEXRELAY_TEST_CONSENSUS = "raft" | "bft" (3.1 only) choose the network.
"""

import os
from collections.abc import Iterator

import pytest
from conformance.ledger.fabric import FabricHarness
from conformance.ledger.harness import Network
from conformance.ledger.promises import LedgerPromises

CONSENSUS = os.environ.get("FLEXRELAY_TEST_CONSENSUS", "raft")


class TestFabricLedger(LedgerPromises):
    harness = FabricHarness(
        fabric=os.environ.get("FLEXRELAY_TEST_FABRIC", "3.1"),
        consensus=CONSENSUS,
        orderers=4 if CONSENSUS == "bft" else 1,
    )

    async def test_the_order_is_the_order_of_submission(self, net: Network) -> None:
        if CONSENSUS == "bft":
            pytest.skip("a BFT leader orders what it has; an envelope that the others took may reach it later")
        await super().test_the_order_is_the_order_of_submission(net)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _ended(cls) -> Iterator[None]:
        yield
        cls.harness.stop()
