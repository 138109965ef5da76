"""A rendered network runs: every container in an empty root of its own, as the user and with the files that the compose
file or the pods give it; then channels and contracts through published ports, and a transaction."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from integration.network.talk import Talk, contract
from support.containers import Container, of_compose, of_manifests, passes, running
from support.fabric import describe
from support.kubernetes_tools import run, template, tool

from flexrelay.network import Network, ensure
from flexrelay.network.ports import answers
from flexrelay.network.render import Target
from flexrelay.network.waiting import until

ORGS = ("dso", "agga")
IMAGE = "contracts.example/flexrelay:1"


def rendered(network: Network, target: Target) -> list[Container]:
    path = network.render(target, IMAGE)
    if target == "helm":
        return of_manifests(template(path))
    return of_compose(json.loads(run([tool("compose"), "-format", "json", path.name], cwd=path.parent)))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", ["compose", "helm"])
@pytest.mark.parametrize(
    ("fabric", "consensus", "orderers"), [("3.1", "bft", 4), ("3.1", "raft", 3), ("2.5", "raft", 1)]
)
async def test_it_runs(tmp_path: Path, target: Target, fabric: str, consensus: str, orderers: int) -> None:
    contracts = [contract(ORGS, required=2)]
    spec = describe(ORGS, fabric=fabric, consensus=consensus, orderers=orderers, contracts=contracts)
    network = Network(spec, tmp_path / "network", ensure(fabric))
    containers = rendered(network, target)
    nodes = [container for container in containers if not container.name.startswith("flexrelay")]
    ports = network.state.ports
    # What a container has is what it was given: the folder itself is out of its reach.
    work = tmp_path / "containers"
    with running(containers, network.binaries, work):
        until(lambda: all(answers(port) for port in ports.values()), f"not all answer, see {work}", 120)
        until(lambda: all(passes(item.probe) for item in containers), f"not all are healthy, see {work}", 120)
        network.join()
        network.join()  # again is nothing
        assert {item.name.replace(".", "-") for item in network.status() if item.healthy} >= {n.name for n in nodes}
        for profile in (tmp_path / "network" / "profiles").rglob("*.toml"):  # ports are published here
            profile.write_text(re.sub(r'endpoint = "[^":]+:', 'endpoint = "127.0.0.1:', profile.read_text()))
        talk = Talk(ORGS)
        async with talk.open(network) as ledger:
            await ledger.run("probe.put", key="a", value="1")  # endorsed by both organisations
            assert await ledger.get("a") == "1"
    kept = {container.name: work / container.name / "data" for container in nodes}
    assert all(any(place.iterdir()) for place in kept.values()), kept
    shutil.rmtree(work)
