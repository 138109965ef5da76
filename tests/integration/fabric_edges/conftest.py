"""Two networks: one whose whole chain is audited against an outbox, one that others write to as they like."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.fabric_edges.consortium import Consortium, description
from integration.fabric_faults.conftest import rig_of
from integration.fabric_faults.rig import Rig
from support.fabric import native


@pytest.fixture(scope="package")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One orderer, three organisations; every transaction on it comes out of one outbox."""
    with rig_of(tmp_path_factory, "edges", "raft", 1) as made:
        yield made


@pytest.fixture(scope="package")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """One orderer, three organisations; each test leaves it as it found it."""
    with native(tmp_path_factory.mktemp("consortium") / "network", description()) as network:
        yield Consortium.on(network)
