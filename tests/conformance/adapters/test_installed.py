"""Adapters that come with flexrelay: each loads, its README's sample works, its level is what its rules give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexrelay.cli.main import app
from flexrelay_sdk import Ability
from flexrelay_sdk.quality import Installed, Level, installed_adapters, read_declaration, samples
from flexrelay_sdk.quality.check import NoNativeCodec

OURS = [adapter for adapter in installed_adapters() if adapter.distribution == "flexrelay"]
each = pytest.mark.parametrize("adapter", OURS, ids=[adapter.name for adapter in OURS])


@each
def test_it_loads_and_takes_readings(adapter: Installed) -> None:
    assert adapter.problem == ""
    assert Ability.READINGS in adapter.abilities


@each
def test_the_samples_of_its_readme_make_adapters(adapter: Installed) -> None:
    assert adapter.folder is not None and adapter.factory is not None
    for name, section in samples(adapter.folder).items():
        made = adapter.factory(name, section, Path("/nowhere"), NoNativeCodec())
        assert made.name == name and made.endpoint and made.protocol
        with pytest.raises(ValueError, match=r"^no_such_field"):
            adapter.factory(name, {**section, "no_such_field": 1}, Path("/nowhere"), NoNativeCodec())


@each
def test_its_level_is_what_its_rules_give(adapter: Installed) -> None:
    assert adapter.folder is not None
    declared = read_declaration(adapter.folder)
    if declared is None:
        assert adapter.level is Level.NONE, "without a declaration there is no level"
    else:
        assert declared.reached is adapter.level


def test_the_list_as_json_names_them_all() -> None:
    done = CliRunner().invoke(app, ["adapter", "list", "--json"])
    assert done.exit_code == 0, done.output
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert set(listed) >= {adapter.name for adapter in OURS}
    mqtt = listed["mqtt"]
    assert mqtt["abilities"] == ["commands", "readings"] and mqtt["quality"] == "gold" and mqtt["simulator"]
    assert mqtt["distribution"] == "flexrelay" and mqtt["problem"] is None


def test_the_rules_of_one_adapter() -> None:
    done = CliRunner().invoke(app, ["adapter", "show", "mqtt", "--json"])
    rules = {rule["rule"]: rule for rule in json.loads(done.stdout)["rules"]}
    assert rules["commands"]["state"] == "done" and rules["backfill"]["state"] == "exempt"
    assert rules["discovery"]["state"] == "missing"
    assert CliRunner().invoke(app, ["adapter", "show", "telepathy"]).exit_code == 2
