"""Which command brings a network from one description to another, and what none can."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from flexrelay.network import Spec, SpecError, parse
from flexrelay.network.changes import Command, check

BEFORE: dict[str, Any] = {
    "name": "n",
    "orderers": 3,
    "organisations": [{"name": "dso"}, {"name": "agga"}],
    "channels": [{"name": "market", "organisations": ["dso", "agga"]}],
    "contracts": [{"name": "flexrelay", "collections": {"both": {"orgs": ["dso", "agga"], "block_to_live": 5}}}],
}
Edit = Callable[[dict[str, Any]], Any]


def changed(*edits: Edit) -> Spec:
    after = copy.deepcopy(BEFORE)
    for edit in edits:
        edit(after)
    return parse(after, "after")


def new_org(spec: dict[str, Any]) -> None:
    spec["organisations"].append({"name": "aggb"})
    spec["channels"][0]["organisations"].append("aggb")


def new_version(spec: dict[str, Any]) -> None:
    spec["contracts"][0] |= {"version": "2", "sequence": 2}


def new_peer(spec: dict[str, Any]) -> None:
    spec["organisations"][0]["peers"] = 2


def new_channel(spec: dict[str, Any]) -> None:
    spec["channels"].append({"name": "own", "organisations": ["dso", "agga"]})


@pytest.mark.parametrize(
    ("edit", "command"),
    [(new_org, "add-org"), (new_version, "upgrade"), (new_peer, "add-peer"), (new_channel, "add-channel")],
)
def test_each_change_has_its_command(edit: Edit, command: Command) -> None:
    had, wanted = changed(), changed(edit)
    check(had, wanted, command)
    with pytest.raises(SpecError, match=f"use `flexrelay network {command}`"):
        check(had, wanted, "up")


def test_a_contract_stays_on_its_channels() -> None:
    had = changed(new_channel)
    wanted = changed(new_channel, lambda spec: spec["contracts"][0].update(channels=["market"]))
    with pytest.raises(SpecError, match=r"contracts\.flexrelay\.channels: cannot be taken out of own; write it again"):
        check(had, wanted, "upgrade")
    check(wanted, had, "upgrade")


def test_nothing_changed_is_always_allowed() -> None:
    check(changed(), changed(), "up")
    check(changed(), changed(), "upgrade")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(orderers=5), "orderers: the network was made with 3"),
        (lambda s: s.update(fabric="2.5"), "fabric: the network was made with 3.1"),
        (lambda s: s["contracts"][0].update(version="2"), "contracts.flexrelay.sequence: write 2"),
        (lambda s: s["contracts"][0].update(version="2", sequence=3), "contracts.flexrelay.sequence: write 2"),
        (lambda s: s["contracts"][0].update(sequence=2), "contracts.flexrelay.sequence: write 1"),
        (lambda s: s["contracts"][0].update(module="other.contract"), "contracts.flexrelay.version: other code"),
        (
            lambda s: s["contracts"][0].update(collections={}, sequence=2),
            "contracts.flexrelay.collections.both: a collection cannot be taken out",
        ),
        (
            lambda s: s["contracts"][0]["collections"]["both"].update(block_to_live=9),
            "contracts.flexrelay.collections.both.block_to_live: cannot be changed; write 5",
        ),
        (lambda s: s.update(contracts=[]), "contracts: flexrelay is in the network"),
        (lambda s: s["channels"][0].update(block={"timeout_ms": 99}), "channels.market.block: stands in"),
    ],
)
def test_what_cannot_be_changed_is_named(edit: Edit, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace(".", r"\.")):
        check(changed(), changed(edit), "upgrade")
