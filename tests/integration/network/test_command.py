"""`flexrelay network` as people and scripts call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.fabric import PATIENCE_S
from typer.testing import CliRunner, Result

from flexrelay.cli.main import app
from flexrelay.network import ensure
from flexrelay.network.waiting import until

SPEC = """
name = "pilot"
[[organisations]]
name = "dso"
[[channels]]
name = "market"
[[contracts]]
name = "flexrelay"
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["network", *arguments])


def answer(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.mark.timeout(1200)
def test_up_status_down(tmp_path: Path) -> None:
    ensure("3.1")
    spec = tmp_path / "net.toml"
    spec.write_text(SPEC)
    at = ("--spec", str(spec), "--folder", str(tmp_path / "n"), "--json")
    try:
        up = call("up", *at)
        assert up.exit_code == 0, up.output
        assert answer(up)["up"] is True
        assert [item["name"] for item in answer(up)["processes"]] == ["orderer0", "peer0.dso", "flexrelay_1.dso"]
        assert answer(up)["profiles"] == [str(tmp_path / "n" / "profiles" / "market" / "dso.toml")]

        until(lambda: call("status", *at).exit_code == 0, "not all is well", PATIENCE_S)
        assert answer(call("status", *at))["processes"][1]["heights"] == {"market": 3}
        table = call("status", *at[:-1])
        assert "peer0.dso" in table.stdout

        down = answer(call("down", *at))
        assert down["ended"] == ["flexrelay_1.dso", "orderer0", "peer0.dso"]
        assert call("status", *at).exit_code == 1
    finally:
        purged = call("down", "--purge", *at)
    assert answer(purged)["purged"] is True
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("command", ["up", "upgrade", "add-org", "status", "down"])
def test_a_bad_description_is_bad_input(tmp_path: Path, command: str) -> None:
    spec = tmp_path / "net.toml"
    spec.write_text(SPEC.replace('name = "flexrelay"', 'name = "flexrelay"\npolicy = { orgs = ["tso"], required = 1 }'))
    result = call(command, "--spec", str(spec), "--folder", str(tmp_path / "n"), "--json")
    assert result.exit_code == 2
    message = answer(result)["error"]["message"]
    assert message == f"{spec}: contracts.0.policy.orgs: there is no organisation tso; there are dso"
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("command", ["upgrade", "status"])
def test_without_a_network_there_is_nothing_to_change(tmp_path: Path, command: str) -> None:
    spec = tmp_path / "net.toml"
    spec.write_text(SPEC)
    result = call(command, "--spec", str(spec), "--folder", str(tmp_path / "n"), "--json")
    assert result.exit_code == 4
    assert "holds no network; `flexrelay network up` makes one" in answer(result)["error"]["message"]
