"""Profiles and descriptions that are wrong, as people give them to the command line: told at once, nothing is left."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from integration.fabric_edges.consortium import Consortium
from support.pilot import flexrelay
from support.simulated import free_ports

from flexrelay.network.authority import Authority, Pair

pytestmark = pytest.mark.timeout(1200)

LONGEST_S = 150.0

NETWORK = """
name = "pilot"
[[organisations]]
name = "dso"
[[channels]]
name = "market"
[[contracts]]
name = "flexrelay"
"""


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ('consensus = "bft"\norderers = 3', "orderers: 3 BFT orderers bear no fault; take 4+"),
        ('consensus = "bft"\norderers = 4\nfabric = "2.5"', "fabric: 2.5 has no BFT orderers"),
        ('orderer_organisation = "dso"', "organisations: the organisation dso stands twice"),
        ("base_port = 80", "base_port: Input should be greater than or equal to 1024"),
        ("guard = 5", "guard is not a known key"),
    ],
)
def test_a_description_with_a_contradiction(tmp_path: Path, addition: str, said: str) -> None:
    spec = tmp_path / "network.toml"
    spec.write_text(addition + NETWORK)
    result = flexrelay("network", "up", "--spec", spec, "--folder", tmp_path / "n")
    assert result.exit_code == 2, result.output
    assert f"{spec}: {said}" in result.stderr
    assert not (tmp_path / "n").exists()


def test_a_description_whose_ports_are_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_ports(1)))
        other.listen()
        port = other.getsockname()[1]
        spec = tmp_path / "network.toml"
        spec.write_text(f"base_port = {port}{NETWORK}")
        began = time.monotonic()
        result = flexrelay("network", "up", "--spec", spec, "--folder", tmp_path / "n")
        assert time.monotonic() - began < LONGEST_S
    assert result.exit_code == 4, result.output
    assert f"base_port: port {port} (for " in result.stderr and "choose another base_port" in result.stderr
    assert not (tmp_path / "n" / "nodes").exists()
    assert flexrelay("network", "down", "--purge", "--spec", spec, "--folder", tmp_path / "n").exit_code == 0


Change = Callable[[str, Path, Consortium], str]


def _expired(text: str, folder: Path, consortium: Consortium) -> str:
    pair = Pair(folder / "old.pem", folder / "old.key")
    consortium.native.materials["dso"].signing.pair_for(pair, "gateway", "client", days=0)
    lines = [
        f'certificate = "{pair.certificate}"' if line.startswith("certificate") else line for line in text.splitlines()
    ]
    return "\n".join(f'key = "{pair.key}"' if line.startswith("key ") else line for line in lines)


def _unknown(text: str, folder: Path, consortium: Consortium) -> str:
    pair = Pair(folder / "forged.pem", folder / "forged.key")
    Authority(folder / "ca", "dso", "sign").pair_for(pair, "gateway", "client")
    lines = [
        f'certificate = "{pair.certificate}"' if line.startswith("certificate") else line for line in text.splitlines()
    ]
    return "\n".join(f'key = "{pair.key}"' if line.startswith("key ") else line for line in lines)


def _replaced(old: str, new: str) -> Change:
    def change(text: str, folder: Path, consortium: Consortium) -> str:
        assert old in text, text
        return text.replace(old, new, 1)

    return change


def _one_dead_peer(text: str, folder: Path, consortium: Consortium) -> str:
    """Only a peer that nobody runs."""
    for org in ("agga", "aggb"):
        start = text.index(f'[[peers]]\norg = "{org}"')
        text = text[:start] + text[text.index("\n\n", start) + 2 :]
    port = consortium.native.state.ports["peer0.dso"]
    return text.replace(f"127.0.0.1:{port}", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (_replaced('channel = "market"', 'channel = "nowhere"'), ("channel 'nowhere'", "check `channel`")),
        (_replaced('chaincode = "flexrelay"', 'chaincode = "other"'), ("'other' is not committed", "`chaincode`")),
        (_replaced('chaincode_version = "1"', 'chaincode_version = "9"'), ("has version '1'", "`chaincode_version`")),
        (_replaced('org = "dso"', 'org = "tso"'), ("profile.toml", "peers: none belongs to the organisation 'tso'")),
        (_replaced('kind = "orderer"', 'kind = "peer"'), ("profile.toml", 'no entry with kind = "orderer"')),
        (_replaced("v = 1", "v = "), ("profile.toml", "is not TOML")),
        (_replaced("tls_ca = ", "tls = "), ("profile.toml", "peers.0.tls")),
        (_expired, ("identity.certificate", "old.pem expired at", "have a new one issued")),
        (_unknown, ("identity.certificate", "forged.pem is not one of dso's")),
        (_one_dead_peer, ("no peer of the profile answers", "127.0.0.1:1")),
    ],
)
def test_a_wrong_profile_on_the_command_line(
    consortium: Consortium, tmp_path: Path, change: Change, parts: tuple[str, ...]
) -> None:
    native = consortium.native
    text = native.profile("dso").read_text().replace('"../../', f'"{native.folder.root}/')
    path = tmp_path / "profile.toml"
    path.write_text(change(text, tmp_path, consortium))
    began = time.monotonic()
    result = flexrelay("init", tmp_path / "site", "--network", "pilot", "--org", "dso", "--profile", f"dso={path}")
    assert time.monotonic() - began < LONGEST_S
    assert result.exit_code in (2, 4), result.output
    assert all(part in result.stderr for part in parts), result.stderr
    assert "Traceback" not in result.output + result.stderr
