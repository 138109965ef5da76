"""Descriptions: what is read, and what is found wrong before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flexrelay.network import SpecError, load, parse

GOOD = """
name = "pilot"
orderers = 3
guard_ms = 60000

[[organisations]]
name = "dso"
peers = 2
[[organisations]]
name = "agga"

[[channels]]
name = "market"
block = { timeout_ms = 250, max_messages = 50 }
[[channels]]
name = "own"
organisations = ["dso"]

[[contracts]]
name = "flexrelay"
version = "1.2"
sequence = 3
entries = { congestion = "bilateral" }
[contracts.collections.agga-dso]
orgs = ["agga", "dso"]
block_to_live = 1000

[[contracts]]
name = "bilateral"
channels = ["market"]
forward_to = "flexrelay"
policy = { orgs = ["dso", "agga"], required = 2 }
"""


def small(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "n",
        "organisations": [{"name": "dso"}, {"name": "agga"}],
        "channels": [{"name": "market"}],
        "contracts": [{"name": "flexrelay"}],
    }
    return {**base, **changes}


def contract(**fields: Any) -> dict[str, Any]:
    return {"contracts": [{"name": "flexrelay", **fields}]}


def test_a_description_is_read_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text(GOOD)
    with pytest.raises(SpecError) as caught:  # the collection's member agga is not in the channel "own"
        load(path)
    assert f"{path}: contracts.0.collections.agga-dso.orgs: agga is not in the channel own; add it there" in str(
        caught.value
    )
    path.write_text(GOOD.replace('version = "1.2"', 'version = "1.2"\nchannels = ["market"]'))
    spec = load(path)
    assert (spec.fabric, spec.consensus, spec.orderers) == ("3.1", "raft", 3)
    assert spec.peer_names("dso") == ("peer0.dso", "peer1.dso")
    assert spec.members(spec.channels[0]) == ("dso", "agga")
    assert spec.channels[0].block.timeout_ms == 250
    assert [item.name for item in spec.contracts_of(spec.channels[1])] == []
    assert spec.warnings() == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"consensus": "bft", "orderers": 3}, "orderers: 3 BFT orderers bear no fault; take 4"),
        ({"consensus": "bft", "orderers": 4, "fabric": "2.5"}, "fabric: 2.5 has no BFT orderers"),
        ({"organisations": [{"name": "dso"}, {"name": "dso"}]}, "organisations: the organisation dso stands twice"),
        ({"organisations": [{"name": "orderer"}]}, "organisations: the organisation orderer stands twice"),
        ({"channels": [{"name": "m"}, {"name": "m"}]}, "channels: the channel m stands twice"),
        (
            {"channels": [{"name": "m", "organisations": ["tso"]}]},
            "channels.0.organisations: there is no organisation tso; there are dso, agga",
        ),
        (contract(policy={"orgs": ["tso"], "required": 1}), "contracts.0.policy.orgs: there is no organisation tso"),
        (contract(policy={"orgs": ["dso"], "required": 2}), "contracts.0.policy.required: 2 of 1"),
        (contract(collections={"c": {"orgs": ["x"]}}), "contracts.0.collections.c.orgs: there is no organisation x"),
        (contract(collections={"a.own": {"orgs": ["dso"]}}), "must match ^[A-Za-z0-9-]"),
        (contract(entries={"congestion": "other"}), "contracts.0.entries: there is no contract other"),
        (
            {"contracts": [{"name": "flexrelay", "entries": {"congestion": "other"}}, {"name": "other"}]},
            "contracts.0.entries.congestion: other does not pass calls on to flexrelay; give it forward_to",
        ),
        (
            {
                "channels": [{"name": "market"}, {"name": "own"}],
                "contracts": [
                    {"name": "flexrelay", "entries": {"congestion": "other"}},
                    {"name": "other", "forward_to": "flexrelay", "channels": ["market"]},
                ],
            },
            "contracts.0.entries.congestion: other is not on the channel own; add it there",
        ),
        (
            {
                "channels": [{"name": "market"}, {"name": "own"}],
                "contracts": [{"name": "flexrelay", "channels": ["own"]}, {"name": "other", "forward_to": "flexrelay"}],
            },
            "contracts.1.forward_to: flexrelay is not on the channel market; add it there",
        ),
        (contract(forward_to="flexrelay"), "contracts.0.forward_to: flexrelay cannot be an entry of itself"),
        (contract(channels=["other"]), "contracts.0.channels: there is no channel other; there are market"),
        ({"ordrers": 3}, "ordrers is not a known key"),
        ({"channels": [{"name": "m", "block": {"timeout": 5}}]}, "channels.0.block.timeout is not a known key"),
        ({"name": "Big Name"}, "name: must match"),
        ({"guard_ms": "5 min"}, "guard_ms: Input should be a valid integer"),
        ({"organisations": []}, "organisations: Tuple should have at least 1 item"),
        ({"fabric": "2.4"}, "fabric: Input should be '3.1' or '2.5'"),
        (
            {"channels": [{"name": "m", "block": {"preferred_bytes": 4096, "absolute_bytes": 2048}}]},
            "channels.0.block.preferred_bytes: must not be more than absolute_bytes",
        ),
    ],
)
def test_a_contradiction_is_named_by_file_and_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(small(**changes), "net.toml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("net.toml: ") for line in lines)
    assert any(message in line for line in lines), lines


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse(small(consensus="bft", **contract(policy={"orgs": ["x", "y"], "required": 1})), "net.toml")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(("orderers", "warned"), [(1, "one orderer"), (2, "no more losses than 1"), (3, "")])
def test_an_inadvisable_number_of_orderers_is_warned_of(orderers: int, warned: str) -> None:
    warnings = parse(small(orderers=orderers), "net.toml").warnings()
    assert warned in "".join(warnings)
    assert bool(warnings) == bool(warned)


def test_the_sample_is_a_description() -> None:
    spec = load(Path(__file__).parents[3] / "deploy" / "fabric" / "network.toml")
    assert spec.warnings() == ()
    assert spec.contracts[0].entries == {"settlement": "bilateral", "dispute": "bilateral"}


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.toml: No such file"):
        load(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(SpecError, match=r"bad\.toml: not TOML"):
        load(tmp_path / "bad.toml")
