"""The chart against Kubernetes' own API server: installed, with its pods admitted under the strictest rules, upgraded
after a change of the network, and removed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.api_server import ApiServer, api_server
from support.fabric import describe
from support.kubernetes_tools import CHART, run, server, template, tool

from flexrelay.network import Network, ensure

SPACE = "grid"
PODS = f"/api/v1/namespaces/{SPACE}/pods?dryRun=All"
SETS = f"/apis/apps/v1/namespaces/{SPACE}/statefulsets"
IMAGE = "contracts.example/flexrelay:1"

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server("etcd")
    with api_server(tmp_path_factory.mktemp("cluster") / "server") as running:
        levels = ("enforce", "warn")
        labels = {f"pod-security.kubernetes.io/{level}": "restricted" for level in levels}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE, "labels": labels}}
        assert running.ask("POST", "/api/v1/namespaces", space)[0] == 201
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        status, answer, _ = running.ask("POST", f"/api/v1/namespaces/{SPACE}/serviceaccounts", account)
        assert status == 201, answer  # its controller is not here
        yield running


def network_of(folder: Path, **fields: Any) -> Network:
    fields.setdefault("organisations", [{"name": "dso"}, {"name": "agga"}])
    return Network(describe(fabric="3.1", orderers=3, **fields), folder / "n", ensure("3.1"))


def helm(cluster: ApiServer, *arguments: str) -> str:
    return run([tool("helm"), *arguments, "--kubeconfig", str(cluster.kubeconfig), "--namespace", SPACE])


def test_it_is_installed_upgraded_and_removed(cluster: ApiServer, tmp_path: Path) -> None:
    network = network_of(tmp_path)
    values = network.render("helm", IMAGE)
    for how in (["--dry-run=server"], []):
        said = helm(cluster, "install", "net", str(CHART), "-f", str(values), *how)
        assert "would violate PodSecurity" not in said
    nodes = {node["name"] for node in yaml.safe_load(values.read_text())["nodes"]}
    assert names(cluster, SETS) == nodes
    assert names(cluster, f"/api/v1/namespaces/{SPACE}/services") == nodes
    budgets = f"/apis/policy/v1/namespaces/{SPACE}/poddisruptionbudgets"
    assert names(cluster, budgets) == {"test-orderers"}
    before = generations(cluster)

    helm(cluster, "upgrade", "net", str(CHART), "-f", str(values))  # again is nothing
    assert generations(cluster) == before

    more = network_of(tmp_path, organisations=[{"name": "dso", "peers": 2}, {"name": "agga"}])
    more.folder.write(network.state)
    changed = more.render("helm", IMAGE)  # a second peer of one organisation
    helm(cluster, "upgrade", "net", str(CHART), "-f", str(changed))
    after = generations(cluster)
    assert after.keys() - before.keys() == {"peer1-dso"}
    assert {name for name in before if after[name] != before[name]} <= {"peer0-dso"}  # it hears of its neighbour

    helm(cluster, "uninstall", "net")
    assert names(cluster, SETS) == set()


def test_pods_are_admitted_where_the_rules_are_strictest(cluster: ApiServer, tmp_path: Path) -> None:
    seen = 0
    for item in template(network_of(tmp_path).render("helm", IMAGE)):
        if item["kind"] != "StatefulSet":
            continue
        pod = item["spec"]["template"]
        claims = item["spec"].get("volumeClaimTemplates", ())
        volumes = [{"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": "c"}} for claim in claims]
        pod["spec"]["volumes"] += volumes  # what the StatefulSet's controller does
        name = item["metadata"]["name"] + "-0"
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {**pod["metadata"], "name": name}, "spec": pod["spec"]}
        status, answer, warnings = cluster.ask("POST", PODS, body)
        assert (status, warnings) == (201, []), answer
        assert answer["spec"]["containers"][0]["resources"]["requests"]["memory"]
        assert not any(volume["name"].startswith("kube-api-access") for volume in answer["spec"]["volumes"])
        pod["spec"]["containers"][0]["securityContext"].pop("capabilities")
        status, answer, _ = cluster.ask("POST", PODS, body)
        assert status == 403  # the rules are in force
        assert "violates PodSecurity" in answer["message"]
        seen += 1
    assert seen == 7


def test_a_large_network_fits_into_helms_record(cluster: ApiServer, tmp_path: Path) -> None:
    """Helm keeps values and manifests in a Secret, which may have 1 MiB."""
    organisations = [{"name": f"org{number}", "peers": 2} for number in range(8)]
    values = network_of(tmp_path, organisations=organisations).render("helm", IMAGE)
    helm(cluster, "install", "large", str(CHART), "-f", str(values))
    path = f"/api/v1/namespaces/{SPACE}/secrets"
    kept = cluster.ask("GET", f"{path}?labelSelector=owner%3Dhelm,name%3Dlarge")[1]["items"]
    size = sum(len(base64.b64decode(value)) for item in kept for value in item["data"].values())
    assert 0 < size < 1_048_576 // 4
    print(f"\n{len(organisations)} organisations, 3 orderers: Helm's record has {size:,} bytes of 1,048,576")
    helm(cluster, "uninstall", "large")


def names(cluster: ApiServer, path: str) -> set[str]:
    status, answer, _ = cluster.ask("GET", path)
    assert status == 200, answer
    return {item["metadata"]["name"] for item in answer["items"]}


def generations(cluster: ApiServer) -> dict[str, int]:
    """StatefulSet → how often what is asked of it has changed."""
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in cluster.ask("GET", SETS)[1]["items"]}
