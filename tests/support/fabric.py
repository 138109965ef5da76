"""Native Fabric networks for tests: real orderers and peers on loopback, ended with the test that asked for them.

`from support.fabric import fabric_network` into a conftest gives a folder's tests one network for the session;
`native` gives a test its own. FLEXRELAY_TEST_FABRIC chooses the version (3.1 without).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flexrelay.network import Network, ProcessStatus, Spec, ensure, parse
from flexrelay.network.waiting import until
from support.guardian import guarded

ORGS = ("dso", "agga", "aggb")
CHANNEL = "market"
CHAINCODE = "flexrelay"
PATIENCE_S = 150.0


def fabric_version() -> str:
    return os.environ.get("FLEXRELAY_TEST_FABRIC", "3.1")


def describe(
    orgs: Sequence[str] = ORGS,
    *,
    fabric: str | None = None,
    consensus: str = "raft",
    orderers: int = 1,
    module: str = "flexrelay_contracts.catalogue",
    collections: Mapping[str, Sequence[str]] | None = None,
    contracts: Sequence[Mapping[str, Any]] | None = None,
    **more: Any,
) -> Spec:
    """A network of these organisations with one channel and, without `contracts`, one contract."""
    base = {
        "name": CHAINCODE,
        "module": module,
        "collections": {name: {"orgs": list(members)} for name, members in (collections or {}).items()},
    }
    return parse(
        {
            "name": "test",
            "fabric": fabric or fabric_version(),
            "consensus": consensus,
            "orderers": orderers,
            "organisations": [{"name": org} for org in orgs],
            "channels": [{"name": CHANNEL, "block": {"timeout_ms": 50}}],
            "contracts": list(contracts) if contracts is not None else [base],
            **more,
        },
        "test",
    )


@contextmanager
def native(folder: Path, spec: Spec | None = None, *, start_contracts: bool = True) -> Iterator[Network]:
    """A network that is up; it is ended afterwards, also when this process is killed; its folder stays."""
    spec = spec or describe()
    network = Network(spec, folder, ensure(spec.fabric))
    with guarded(folder):
        try:
            network.up(start_contracts=start_contracts)
            yield network
        finally:
            network.down()


def healthy(network: Network) -> list[ProcessStatus]:
    """Its status, once every process says that it works."""
    found: list[ProcessStatus] = []

    def all_are() -> bool:
        found[:] = network.status()
        return all(item.healthy for item in found)

    until(all_are, "not all processes are healthy", PATIENCE_S)
    return found


def level(network: Network, channel: str = CHANNEL) -> int:
    """The channel's height, once all its orderers and peers have it."""
    found: list[int] = []

    def all_have() -> bool:
        found[:] = [item.heights.get(channel, 0) for item in network.status() if item.kind != "contract"]
        return min(found) == max(found) > 0

    until(all_have, f"the blocks of {channel} are not everywhere", PATIENCE_S)
    return found[0]


@pytest.fixture(scope="session")
def fabric_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One orderer, three organisations with a peer and the contracts each."""
    with native(tmp_path_factory.mktemp("fabric") / "network") as network:
        yield network
