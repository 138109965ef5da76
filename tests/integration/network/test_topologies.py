"""The topologies that tests use: up, a transaction, down, up again with the same ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from integration.network.talk import Talk, contract
from support.fabric import describe, healthy, level

from flexrelay.network import Network, ensure

TOPOLOGIES = [
    pytest.param("3.1", "raft", 1, ("dso", "agga"), id="3.1 one orderer"),
    pytest.param("3.1", "raft", 3, ("dso", "agga", "aggb"), id="3.1 three Raft orderers"),
    pytest.param("3.1", "bft", 4, ("dso", "agga", "aggb"), id="3.1 four BFT orderers"),
    pytest.param("2.5", "raft", 1, ("dso", "agga"), id="2.5 one orderer"),
    pytest.param("2.5", "raft", 3, ("dso", "agga", "aggb"), id="2.5 three Raft orderers"),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("fabric", "consensus", "orderers", "orgs"), TOPOLOGIES)
async def test_it_comes_up_and_goes_on_where_it_was(
    tmp_path: Path, fabric: str, consensus: str, orderers: int, orgs: tuple[str, ...]
) -> None:
    spec = describe(
        orgs, fabric=fabric, consensus=consensus, orderers=orderers, contracts=[contract(orgs, required=len(orgs))]
    )
    network = Network(spec, tmp_path / "network", await asyncio.to_thread(ensure, fabric))
    talk = Talk(orgs)
    try:
        await asyncio.to_thread(network.up)
        status = healthy(network)
        assert len(status) == orderers + 2 * len(orgs)
        async with talk.open(network) as ledger:
            await ledger.run("probe.put", key="a", value="1")  # endorsed by every organisation
        before = level(network)

        ended = await asyncio.to_thread(network.down)
        assert len(ended) == len(status)
        assert all(item.pid is None for item in network.status())

        again = Network(spec, tmp_path / "network", network.binaries)
        await asyncio.to_thread(again.up)
        assert level(again) == before
        async with talk.open(again) as ledger:
            assert await ledger.get("a") == "1"
            await ledger.run("probe.put", key="b", value="2", org=orgs[-1])
            assert await ledger.get("b") == "2"
    finally:
        await asyncio.to_thread(network.down, purge=True)
    assert not (tmp_path / "network").exists()
