"""A native network for this folder, and a way to change it for a moment."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from conformance.ledger.fabric import FabricHarness, FabricNetwork
from conformance.ledger.harness import Spec


@pytest.fixture(scope="session")
def harness() -> Iterator[FabricHarness]:
    made = FabricHarness()
    yield made
    made.stop()


@pytest_asyncio.fixture
async def net(harness: FabricHarness) -> AsyncIterator[FabricNetwork]:
    async with harness.open(Spec()) as network:
        assert isinstance(network, FabricNetwork)
        yield network


@pytest.fixture
def profile(harness: FabricHarness) -> Path:
    """The DSO's profile with all organisations' peers, and a key in a file."""
    return harness.native.profile("dso")
