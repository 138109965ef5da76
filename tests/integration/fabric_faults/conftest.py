"""One network for each topology, with the gateway's folder of all tests on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from integration.fabric_faults.rig import Rig
from support.fabric import ORGS, describe, native
from support.fabric_chain import FabricChain

CONTRACT = "integration.fabric_faults.contract"


@contextmanager
def rig_of(factory: pytest.TempPathFactory, name: str, consensus: str, orderers: int) -> Iterator[Rig]:
    folder = factory.mktemp(name)
    with native(folder / "network", describe(ORGS, consensus=consensus, orderers=orderers, module=CONTRACT)) as network:
        chain = FabricChain.at(folder / "gateway")
        chain.enrol(network)
        asyncio.run(chain.found(ORGS))
        yield Rig(network, chain)


@pytest.fixture(scope="package")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One orderer, three organisations."""
    with rig_of(tmp_path_factory, "single", "raft", 1) as rig:
        yield rig


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Three Raft orderers, three organisations."""
    with rig_of(tmp_path_factory, "raft", "raft", 3) as rig:
        yield rig


@pytest.fixture(scope="module")
def bft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Four BFT orderers, three organisations."""
    with rig_of(tmp_path_factory, "bft", "bft", 4) as rig:
        yield rig
