"""A description as containers: what they are given, what they are not, and YAML that others read."""

from __future__ import annotations

import re
import stat
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.fabric import describe

from flexrelay.network import Network, NetworkError, ensure
from flexrelay.network.render import yaml as written


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    spec = describe(("dso", "agga"), orderers=3, fabric="3.1")
    return Network(spec, tmp_path_factory.mktemp("render") / "n", ensure("3.1"))


@pytest.fixture(scope="module")
def compose(network: Network) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(network.render("compose", "contracts:1").read_text())
    return found


@pytest.mark.timeout(1200)
def test_every_process_is_a_service_of_the_official_images(compose: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert images == {
        **{f"orderer{number}": "hyperledger/fabric-orderer:3.1.1" for number in range(3)},
        **{f"peer0-{org}": "hyperledger/fabric-peer:3.1.1" for org in ("dso", "agga")},
        **{f"flexrelay-1-{org}": "contracts:1" for org in ("dso", "agga")},
    }
    assert compose["services"]["peer0-dso"]["command"] == ["peer", "node", "start"]


def test_nothing_of_this_machine_is_in_it(network: Network, compose: dict[str, Any]) -> None:
    text = yaml.safe_dump(compose)
    assert str(network.folder.root) not in text
    assert str(Path.home()) + "/" not in text
    for name, service in compose["services"].items():
        for key, value in service["environment"].items():
            assert "127.0.0.1" not in value, (name, key)
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])  # published here and nowhere else


def test_each_has_its_own_keys_and_no_other(network: Network, compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service["volumes"]:
            source, inside, *mode = volume.split(":")
            if not source.startswith("./"):
                continue
            assert mode == ["ro"]
            assert inside == f"/flexrelay/{source[2:]}"
            content = (network.folder.root / source).read_bytes()
            if b"PRIVATE KEY" in content:
                owner = source.split("/")[3].replace(".", "-").replace("_", "-")
                assert owner == name


def test_nodes_find_each_other_by_the_names_in_their_certificates(network: Network, compose: dict[str, Any]) -> None:
    peer = compose["services"]["peer0-dso"]["environment"]
    assert re.fullmatch(r"peer0-dso:\d+", peer["CORE_PEER_ADDRESS"])
    assert peer["CORE_PEER_CHAINCODEADDRESS"].startswith("peer0-dso:")  # 0.0.0.0 would be refused
    certificate = network.materials["dso"].tls_pair("peer0.dso", "peer").certificate.read_bytes()
    from cryptography import x509

    names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert "peer0-dso" in names.value.get_values_for_type(x509.DNSName)


def test_values_carry_the_files(network: Network, compose: dict[str, Any]) -> None:
    path = network.render("helm", "contracts:1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = yaml.safe_load(path.read_text())
    assert {node["name"] for node in values["nodes"]} == set(compose["services"])
    node = next(node for node in values["nodes"] if node["name"] == "peer0-agga")
    assert node["environment"] == compose["services"]["peer0-agga"]["environment"]
    for file in node["files"]:
        source = network.folder.root / file["path"].removeprefix("/flexrelay/")
        assert b64decode(file["content"]) == source.read_bytes()


def test_nothing_is_joined_without_containers(network: Network, compose: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match=r"orderer0 does not answer on 127\.0\.0\.1, ports"):
        network.join()
    with pytest.raises(NetworkError, match="was rendered for containers"):
        network.up()


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": ["x", {"c": 1, "d": [[], {}, None, True]}]}, "empty": {}, "list": []},
        {"yes": "no", "on": "off", "1": "1", "null": "null", "": "", "colon: x": "# no comment", "dash": "- x"},
        ["one", ["nested", "list"], {"k": "multi\nline", "ü": "%{time} 'quoted' \"double\" \\ back"}],
    ],
)
def test_yaml_is_read_back(value: Any) -> None:
    assert yaml.safe_load(written(value)) == value
