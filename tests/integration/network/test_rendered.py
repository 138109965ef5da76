"""Rendered networks before the eyes of others: compose's own loader, Helm's lint and templates, and every manifest
strictly against Kubernetes' schemas; then what no schema knows: that nodes find each other and their files.
"""

from __future__ import annotations

import io
import json
import re
import stat
import tarfile
import tomllib
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from support.fabric import describe
from support.kubernetes_tools import CHART, SCHEMAS, Manifest, run, template, tool

from flexrelay.network import Network, NetworkError, ensure

CONTRACTS = [
    {"name": "flexrelay", "version": "1.2", "entries": {"settlement": "bilateral"}},
    {"name": "bilateral", "forward_to": "flexrelay"},
]
IMAGE = "registry.example:5000/flexrelay:1$2"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    organisations = [{"name": "dso", "peers": 2}, {"name": "agga"}]
    spec = describe(orderers=3, fabric="3.1", organisations=organisations, contracts=CONTRACTS)
    return Network(spec, tmp_path_factory.mktemp("rendered") / "n", ensure("3.1"))


@pytest.fixture(scope="module")
def compose(network: Network) -> dict[str, Any]:
    """As compose's loader understands it."""
    path = network.render("compose", IMAGE)
    document: dict[str, Any] = json.loads(run([tool("compose"), "-format", "json", path.name], cwd=path.parent))
    return document


@pytest.fixture(scope="module")
def values(network: Network) -> Path:
    return network.render("helm", IMAGE)


@pytest.fixture(scope="module")
def manifests(values: Path) -> list[Manifest]:
    return template(values)


@pytest.mark.timeout(1200)
def test_compose_takes_it_as_it_was_meant(network: Network, compose: dict[str, Any]) -> None:
    written = yaml.safe_load((network.folder.root / "compose.yaml").read_text())
    assert compose["services"].keys() == written["services"].keys()
    for name, service in compose["services"].items():
        meant = written["services"][name]
        environment = service.get("environment", {})
        assert environment == {key: text.replace("$$", "$") for key, text in meant["environment"].items()}
        assert len(service["ports"]) == len(meant["ports"])
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        assert all(int(port["published"]) == port["target"] for port in service["ports"])
        for volume in service["volumes"]:
            if volume["type"] == "bind":
                assert volume["read_only"]
                assert Path(volume["source"]).is_file(), volume  # a missing one would become a directory
            else:
                assert volume["source"] in compose["volumes"]
    assert compose["services"]["bilateral-1-dso"]["image"] == IMAGE  # the dollar is no variable


def test_the_chart_is_without_fault(values: Path) -> None:
    run([tool("helm"), "lint", "--strict", str(CHART), "-f", str(values)])


def test_every_manifest_is_what_kubernetes_takes(values: Path, tmp_path: Path) -> None:
    options = ["--set", "storageClass=fast", "--set", "imagePullSecrets[0].name=registry"]
    text = run([tool("helm"), "template", "net", str(CHART), "-f", str(values), *options])
    path = tmp_path / "manifests.yaml"
    path.write_text(text)
    location = str(SCHEMAS / "{{.ResourceKind}}{{.KindSuffix}}.json")
    command = [tool("kubeconform"), "-strict", "-output", "json", "-summary", "-schema-location", location]
    summary = json.loads(run([*command, str(path)]))["summary"]
    assert summary["valid"] == len([item for item in yaml.safe_load_all(text) if item])
    assert summary["invalid"] == summary["errors"] == summary["skipped"] == 0
    path.write_text(text.replace("runAsNonRoot", "runAsNonRot", 1))  # the schemas are strict indeed
    with pytest.raises(pytest.fail.Exception, match="runAsNonRot"):
        run([*command, str(path)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("nodes"), "flexrelay network render helm"),
        (lambda document: document.update(network="Not A Label"), "network"),
        (lambda document: document["nodes"][0].update(kind="pear"), "kind"),
        (lambda document: document["nodes"][0].pop("probe"), "probe"),
        (lambda document: document.update(nodez=[]), "nodez"),
    ],
)
def test_values_that_are_not_of_a_network_are_refused(values: Path, tmp_path: Path, change: Any, message: str) -> None:
    document = yaml.safe_load(values.read_text())
    change(document)
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(pytest.fail.Exception, match=message):
        template(path)


def test_nodes_are_reached_by_names_in_their_certificates(manifests: list[Manifest]) -> None:
    services = of_kind(manifests, "Service")
    for name, pod in pods(manifests).items():
        service = services[name]["spec"]
        assert service["selector"].items() <= pod["labels"].items()
        assert {port["targetPort"] for port in service["ports"]} == {port["name"] for port in ports_of(pod)}
        own = {path: content for path, (content, _) in files_of(manifests, name).items() if "/ca/" not in path}
        [certificate] = [content for path, content in own.items() if path.endswith("/tls.pem") and "msp" not in path]
        assert name in names_in(certificate)
        for key, value in environment_of(pod).items():
            if key == "FABRIC_LOGGING_FORMAT":  # times have colons too
                continue
            for host, port in re.findall(r"\b([a-z][a-z0-9-]*):(\d{4,5})\b", value):
                offered = [entry["port"] for entry in services[host]["spec"]["ports"]]
                assert int(port) in offered, (name, key)


def test_every_path_that_a_node_looks_at_is_mounted(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        container = pod["spec"]["containers"][0]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        paths = [path for text in environment_of(pod).values() for path in re.findall(r"/flexrelay/[^\s\]},]+", text)]
        paths += [word for word in container["args"] if word.startswith("/flexrelay/")]
        assert paths
        for path in paths:
            assert any(f"{path}/".startswith(f"{m}/") or m.startswith(f"{path}/") for m in mounts), (name, path)


def test_a_contract_is_dialled_where_it_listens_with_keys_that_it_knows(
    network: Network, manifests: list[Manifest]
) -> None:

    services = of_kind(manifests, "Service")
    for org in ("dso", "agga"):
        for label in ("flexrelay_1.2", "bilateral_1"):
            package = network.folder.package(label, org).read_bytes()
            connection = json.loads(member(member(package, "code.tar.gz"), "connection.json"))
            host, port = connection["address"].split(":")
            assert services[host]["spec"]["ports"][0] == {"name": "grpc", "port": int(port), "targetPort": "grpc"}
            files = files_of(manifests, host)
            [config] = [content for path, (content, _) in files.items() if path.endswith(".toml")]
            settings = tomllib.loads(config.decode())
            assert settings["listen"] == f"0.0.0.0:{port}"
            place = Path("/flexrelay/contracts")
            known = {str(place / settings[key]) for key in ("tls_certificate", "tls_key", "client_ca")}
            assert {path.replace("/contracts/..", "") for path in known} <= files.keys()
            assert connection["root_cert"].encode() in [content for content, _ in files.values()]


def test_pods_have_no_rights_and_a_place_to_write(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        spec = pod["spec"]
        [container] = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        rights = container["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        health = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
        last = ports_of(pod)[-1]["name"]
        assert all(item == {"path": "/healthz", "port": last} for item in health.values())
        written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written == {"/tmp", next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "data")}
        for path, (content, mode) in files_of(manifests, name).items():
            assert not mode & (stat.S_IRWXO | stat.S_IWGRP), path
            if b"PRIVATE KEY" in content:
                assert f"/{name}/" in path.replace(".", "-").replace("_", "-"), path


def test_ledgers_are_kept_and_orderers_restarted_by_hand(manifests: list[Manifest]) -> None:
    for name, item in of_kind(manifests, "StatefulSet").items():
        kind = item["metadata"]["labels"]["app.kubernetes.io/component"]
        claims = item["spec"].get("volumeClaimTemplates", [])
        assert [claim["metadata"]["name"] for claim in claims] == ([] if kind == "contract" else ["data"]), name
        assert item["spec"]["updateStrategy"]["type"] == ("OnDelete" if kind == "orderer" else "RollingUpdate")
    [budget] = of_kind(manifests, "PodDisruptionBudget").values()
    chosen = budget["spec"]["selector"]["matchLabels"].items()
    assert [name for name, pod in pods(manifests).items() if chosen <= pod["labels"].items()] == [
        "orderer0",
        "orderer1",
        "orderer2",
    ]


def test_other_files_are_other_pods(network: Network, values: Path, tmp_path: Path) -> None:
    """A renewed certificate starts its node again and no other."""
    document = yaml.safe_load(values.read_text())
    before = {name: pod["annotations"] for name, pod in pods(template(values)).items()}
    node = next(node for node in document["nodes"] if node["name"] == "peer0-dso")
    node["files"][0]["content"] = "cmVuZXdlZA=="
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(document))
    after = {name: pod["annotations"] for name, pod in pods(template(path)).items()}
    assert {name for name in before if before[name] != after[name]} == {"peer0-dso"}


@pytest.mark.parametrize(
    ("contracts", "message"),
    [
        ([{"name": "9lives"}], "9lives-1-dso, which must begin with a letter"),
        ([{"name": "flexrelay", "version": "1+a"}], r"flexrelay-1\+a-dso, which must"),
        ([{"name": "f" * 60}], "at most 52"),
        ([{"name": "Flex"}, {"name": "flex"}], "Flex_1.dso would have the same host name flex-1-dso"),
    ],
)
def test_a_name_that_is_no_host_name_is_refused_at_once(tmp_path: Path, contracts: Any, message: str) -> None:
    network = Network(describe(("dso",), contracts=contracts, fabric="3.1"), tmp_path / "n", ensure("3.1"))
    for target in ("compose", "helm"):
        with pytest.raises(NetworkError, match=message):
            network.render(target, IMAGE)
    assert not (tmp_path / "n").exists()


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {item["metadata"]["name"]: item for item in manifests if item["kind"] == kind}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """{labels, annotations, spec} of each node's pod."""
    return {
        name: {**item["spec"]["template"]["metadata"], "spec": item["spec"]["template"]["spec"]}
        for name, item in of_kind(manifests, "StatefulSet").items()
    }


def ports_of(pod: Manifest) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = pod["spec"]["containers"][0]["ports"]
    return ports


def environment_of(pod: Manifest) -> Mapping[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0].get("env", ())}


def files_of(manifests: list[Manifest], name: str) -> dict[str, tuple[bytes, int]]:
    """Path in the container → (content, mode)."""
    pod = pods(manifests)[name]["spec"]
    [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    data = of_kind(manifests, "Secret")[secret["secretName"]]["data"]
    items = {item["path"]: item for item in secret["items"]}
    mounts = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "files"]
    chosen = {mount["mountPath"]: items[mount["subPath"]] for mount in mounts}
    return {path: (b64decode(data[item["key"]]), item["mode"]) for path, item in chosen.items()}


def member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = opened.extractfile(name)
        assert found is not None
        return found.read()


def names_in(certificate: bytes) -> list[str]:
    extension = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return extension.value.get_values_for_type(x509.DNSName)
