"""Hyperledger Fabric keeps every promise of the port.

FLEXRELAY_TEST_FABRIC = "3.1" | "2.5" and FLEXRELAY_TEST_CONSENSUS = "raft" | "bft" (3.1 only) choose the network.
"""

import os
from collections.abc import Iterator

import pytest
from conformance.ledger.contract import TRANSACTIONS
from conformance.ledger.fabric import FabricHarness, FabricNetwork
from conformance.ledger.harness import Network
from conformance.ledger.promises import LedgerPromises

from flexrelay.ledger.fabric.verify import verify

pytestmark = pytest.mark.timeout(1200)
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

    async def test_what_the_promises_left_recomputes(self, net: Network) -> None:
        """The chain of all promises before this one: each kind of read, write, policy, conflict and refusal."""
        assert isinstance(net, FabricNetwork)
        found = await verify(net.ledgers["dso"], transactions=TRANSACTIONS)
        assert found.ok, found.problems
        assert found.compared_state and found.executed and found.height
        print(found)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _ended(cls) -> Iterator[None]:
        yield
        cls.harness.stop()
