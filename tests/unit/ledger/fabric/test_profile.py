"""Connection profiles: what is wrong is named with file, field and remedy."""

from pathlib import Path
from typing import Any

import pytest

from flexrelay.ledger.fabric import ProfileError, load_profile

GOOD = """
v = 1
channel = "grid"
chaincode = "flexrelay"
org = "dso"
[entries]
awards = "awards"
[identity]
certificate = "gateway.pem"
key = "keys/gateway.key"
[[peers]]
org = "dso"
endpoint = "peer0.dso:7051"
tls_ca = "tls.pem"
[[peers]]
org = "agga"
endpoint = "[::1]:7051"
tls_ca = "/etc/tls.pem"
[[organisations]]
msp = "dso"
kind = "peer"
ca = "dso.pem"
[[organisations]]
msp = "agga"
kind = "peer"
ca = "agga.pem"
[[organisations]]
msp = "op"
kind = "orderer"
ca = "op.pem"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "profile.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_profile(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, GOOD))
    assert profile.identity.certificate == str(tmp_path / "gateway.pem")
    assert profile.identity.key == str(tmp_path / "keys/gateway.key")
    assert [peer.tls_ca for peer in profile.peers] == [str(tmp_path / "tls.pem"), "/etc/tls.pem"]
    assert [item.ca for item in profile.organisations] == [str(tmp_path / f"{n}.pem") for n in ("dso", "agga", "op")]
    assert [peer.endpoint for peer in profile.own_peers] == ["peer0.dso:7051"]


def test_functions_enter_by_their_contracts_chaincode(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, GOOD))
    assert profile.entry_of("awards.make") == "awards"
    assert profile.entry_of("offers.make") == profile.entry_of("") == "flexrelay"
    assert profile.chaincodes == ("flexrelay", "awards")


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ('org = "dso"\n[entries]', 'org = "aggb"\n[entries]', ("peers", "'aggb'")),
        ('msp = "agga"', 'msp = "other"', ("organisations", "'agga'", "named in the profile")),
        ('kind = "orderer"', 'kind = "peer"', ("orderer", "no block can be verified")),
        ('kind = "orderer"', 'kind = "client"', ("organisations.2.kind",)),
        ("peer0.dso:7051", "peer0.dso", ("peers.0", "is not host:port")),
        ("peer0.dso:7051", "peer0.dso:70510", ("peers.0", "is not host:port")),
        ("[::1]:7051", "peer0.dso:7051", ("peers.1: peer0.dso:7051 stands twice (dso, agga)",)),
        ('channel = "grid"', "", ("channel is missing",)),
        ('channel = "grid"', 'chanel = "grid"', ("chanel",)),
        ("v = 1", "v = 2", ("v:",)),
        ("v = 1", "v = = 1", ("is not TOML",)),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, messages: tuple[str, ...]) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    for text in (str(path), *messages):
        assert text in str(caught.value)


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere\.toml: cannot be read"):
        load_profile(tmp_path / "nowhere.toml")


def test_secrets_are_no_part_of_a_message(tmp_path: Path) -> None:
    secret: Any = "s3cret-value"
    path = written(tmp_path, GOOD.replace('channel = "grid"', f'channel = ["{secret}"]'))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert secret not in str(caught.value)
