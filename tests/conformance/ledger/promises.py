"""All promises of the ledger port. A ledger's test is `class TestX(LedgerPromises): harness = XHarness()`."""

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest_asyncio
from conformance.ledger.event_promises import EventPromises
from conformance.ledger.harness import LedgerHarness, Network, Spec
from conformance.ledger.private_promises import PrivatePromises
from conformance.ledger.state_promises import StatePromises
from conformance.ledger.submit_promises import SubmitPromises


class LedgerPromises(StatePromises, SubmitPromises, EventPromises, PrivatePromises):
    """Every promise runs on a network of its own."""

    harness: ClassVar[LedgerHarness]

    @pytest_asyncio.fixture
    async def net(self) -> AsyncIterator[Network]:
        async with self.harness.open(Spec()) as network:
            yield network


PROMISES = tuple(sorted(name for name in dir(LedgerPromises) if name.startswith("test_")))
