"""A network that lives: upgraded, with more organisations, peers and channels, a peer from its backup."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from integration.network.talk import Talk, contract, described
from support.fabric import CHANNEL, describe, fabric_version, healthy, level

from flexrelay.network import Network, NetworkError, SpecError, ensure
from flexrelay.network.changes import Command

ORGS = ("dso", "agga")


async def bring(network: Network, command: Command, **changes: Any) -> Network:
    after = Network(described(network, **changes), network.folder.root, network.binaries)
    await asyncio.to_thread(after.up, command)
    healthy(after)
    return after


@pytest.mark.timeout(1200)
async def test_a_network_grows_while_it_works(tmp_path: Path) -> None:
    version = fabric_version()
    binaries = await asyncio.to_thread(ensure, version)
    network = Network(describe(ORGS, contracts=[contract(ORGS)]), tmp_path / "network", binaries)
    talk = Talk(ORGS)
    three = (*ORGS, "aggb")
    try:
        await asyncio.to_thread(network.up)
        async with talk.open(network) as ledger:
            await ledger.run("probe.put", key="a", value="1")

        # a new version; without the next sequence it is refused before anything happens
        newer = [contract(ORGS, required=2, version="2", sequence=2)]
        with pytest.raises(SpecError, match=r"contracts\.flexrelay\.sequence: write 2"):
            await bring(network, "upgrade", contracts=[contract(ORGS, version="2")])
        network = await bring(network, "upgrade", contracts=newer)
        assert sorted(name for name in network.processes.running() if "flexrelay" in name) == [
            "flexrelay_2.agga",
            "flexrelay_2.dso",
        ]
        async with talk.open(network) as ledger:
            assert await ledger.get("a") == "1"
            await ledger.run("probe.put", key="b", value="2")  # two organisations must endorse now

        # a second peer of an organisation
        peers = [{"name": "dso", "peers": 2}, {"name": "agga"}]
        network = await bring(network, "add-peer", organisations=peers)
        assert "peer1.dso" in {item.name for item in network.status()}
        level(network)

        # an organisation, which has to endorse from then on
        network = await bring(
            network,
            "add-org",
            organisations=[*peers, {"name": "aggb"}],
            channels=[{"name": CHANNEL, "block": {"timeout_ms": 50}}],
            contracts=[contract(three, required=3, version="2", sequence=3)],
        )
        async with talk.open(network) as ledger:
            assert await ledger.get("b") == "2"
            await ledger.run("probe.put", key="c", value="3")
        definition = network.peer("peer0.aggb").committed(CHANNEL, "flexrelay")
        assert definition is not None
        assert (definition["sequence"], definition["version"]) == (3, "2")
        assert definition["approvals"] == dict.fromkeys(three, True)

        # a channel, where the contract begins at Fabric's sequence 1
        own = {"name": "own", "organisations": [*three], "block": {"timeout_ms": 50}}
        channels = [network.spec.channels[0].model_dump(mode="json"), own]
        network = await bring(network, "add-channel", channels=channels)
        there = network.peer("peer0.dso").committed("own", "flexrelay")
        assert there is not None
        assert there["sequence"] == 1
        second = Talk(three)
        async with second.open(network, "own") as ledger:
            await ledger.run("probe.put", key="own", value="x")

        # and the next version counts on from there, on both
        newest = [contract(three, required=2, version="3", sequence=4)]
        network = await bring(network, "upgrade", contracts=newest)
        sequences = [network.peer("peer0.dso").committed(name, "flexrelay") for name in (CHANNEL, "own")]
        assert [item["sequence"] for item in sequences if item] == [4, 2]
        async with talk.open(network) as ledger:
            assert [await ledger.get(key) for key in "abc"] == ["1", "2", "3"]
            await ledger.run("probe.put", key="d", value="4")
    finally:
        await asyncio.to_thread(network.down, purge=True)


@pytest.mark.timeout(1200)
async def test_a_peer_comes_back_from_its_backup(tmp_path: Path) -> None:
    binaries = await asyncio.to_thread(ensure, fabric_version())
    network = Network(describe(ORGS, contracts=[contract(ORGS)]), tmp_path / "network", binaries)
    talk = Talk(ORGS)
    kept = tmp_path / "backup"
    try:
        await asyncio.to_thread(network.up)
        async with talk.open(network) as ledger:
            await ledger.run("probe.put", key="a", value="1")
        blocks = await asyncio.to_thread(network.backup, "peer0.dso", kept)
        assert blocks[CHANNEL] + 1 == level(network)
        async with talk.open(network) as ledger:
            await ledger.run("probe.put", key="b", value="2")
        with pytest.raises(NetworkError, match="exists already; name another folder"):
            network.backup("peer0.dso", kept)
        with pytest.raises(NetworkError, match=r"is of peer0\.dso; a peer of another organisation"):
            network.restore("peer0.agga", kept)
        with pytest.raises(NetworkError, match="holds no backup of a peer"):
            network.restore("peer0.dso", tmp_path)

        network.kill("peer0.dso")
        shutil.rmtree(network.folder.data("peer0.dso") / "data" / "ledgersData")
        aside = await asyncio.to_thread(network.restore, "peer0.dso", kept)
        assert aside is not None
        await asyncio.to_thread(network.up)
        level(network)
        async with talk.open(network) as ledger:
            assert [await ledger.get(key) for key in "ab"] == ["1", "2"]  # the second came from the orderer
            await ledger.run("probe.put", key="c", value="3")
    finally:
        await asyncio.to_thread(network.down, purge=True)
