"""One small Fabric for all of these tests; nothing changes it."""

import pytest
from unit.ledger.fabric.world import World


@pytest.fixture(scope="session")
def world() -> World:
    return World()
