"""The quality scale: what is claimed is compared with what is there."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from flexrelay.cli.main import app
from flexrelay_sdk.quality import Declaration, Level, read_declaration, rules, samples, violations
from flexrelay_sdk.skeleton import generate
from flexrelay_sdk.testkit import AdapterContract, Promise


class Contract(AdapterContract):
    without = {Promise.COMMANDS: "there is no way back", Promise.SLEEP: "nothing sleeps"}  # noqa: RUF012  # ClassVar


def test_every_promise_is_a_rule_and_no_rule_stands_twice() -> None:
    named = [rule.id for rule in rules()]
    assert len(named) == len(set(named))
    assert {rule.id for rule in rules() if rule.by in ("promise", "ability")} == {promise.value for promise in Promise}


def claims(level: Level, **more: object) -> Declaration:
    done = {rule.id: "here" for rule in rules() if Level[rule.level.upper()] <= level}
    return Declaration.model_validate({"level": level.word, "done": done, **more})


@pytest.mark.parametrize("level", list(Level))
def test_a_level_needs_all_rules_up_to_it(level: Level) -> None:
    assert claims(level).reached is level
    if level > Level.BRONZE:
        without = {name: where for name, where in claims(level).done.items() if name != "malformed"}
        assert Declaration(level=level.word, done=without).reached is Level.NONE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('level = "gold"\n[done]\nshiny = "yes"', "no rule 'shiny'"),
        ('level = "best"\n[done]', "level"),
        ('level = "none"\n[done]\ncommands = "x"\n[exempt]\ncommands = "no way back"', "both done and exempt"),
        ('level = "none"\n[done]\n[exempt]\nlifecycle = "too hard for us"', "nobody is exempt"),
        ('level = "none"\n[done]\n[exempt]\ncommands = "no"', "at least 8"),
        ("level =", "quality.toml"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_named(tmp_path: Path, text: str, says: str) -> None:
    assert read_declaration(tmp_path) is None
    (tmp_path / "quality.toml").write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        read_declaration(tmp_path)
    assert "quality.toml" in str(caught.value)


@pytest.fixture
def package(tmp_path: Path) -> Iterator[ModuleType]:
    """A new adapter's package, importable."""
    made = generate("unit-box", tmp_path / "box")
    sys.path.insert(0, str(made / "src"))
    try:
        yield import_module("flexrelay_unit_box")
    finally:
        sys.path.remove(str(made / "src"))
        for name in [name for name in sys.modules if name.startswith("flexrelay_unit_box")]:
            del sys.modules[name]


def test_a_new_package_is_silver_and_what_it_does_not_hold_is_found(package: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "box" / "src" / "flexrelay_unit_box"
    check = package.make_adapter
    assert violations("unit_box", check, [Contract]) == []
    declared = folder / "quality.toml"
    honest = declared.read_text()

    def found(text: str) -> str:
        declared.write_text(text)
        return "\n".join(violations("unit_box", check, [Contract]))

    assert "calls itself gold; its rules give silver" in found(honest.replace('"silver"', '"gold"'))
    assert "commands is declared done, but a contract leaves it out" in found(
        honest.replace('commands = "the toy protocol has no way back yet"\n', "").replace(
            "\n[exempt]", 'commands = "tests"\n\n[exempt]'
        )
    )
    assert "backfill is declared done, but its class has no such method" in found(
        honest.replace("\n[exempt]", 'backfill = "there"\n\n[exempt]')
    )
    assert "simulator is declared done, but the group flexrelay.simulators has no unit_box" in found(
        honest.replace("\n[exempt]", 'simulator = "there"\n\n[exempt]')
    )
    assert "redelivery is declared exempt, but it is there" in found(
        honest.replace('redelivery = "tests"\n', "") + 'redelivery = "we do not do it"\n'
    )
    declared.write_text(honest)
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("port = 7700", "port = 0"))
    assert "its sample is refused: port" in "\n".join(violations("unit_box", check, [Contract]))
    (folder / "py.typed").unlink()
    assert "has no py.typed" in "\n".join(violations("unit_box", check, [Contract]))
    declared.unlink()
    assert "no quality.toml" in violations("unit_box", check, [Contract])[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [("# x", "no sample"), ("```toml\na = \n```\n", "no TOML"), ("```toml\na = 1\n```\n", "no sample")],
)
def test_a_readme_without_a_sample_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError, match="has no README"):
        samples(tmp_path)
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError, match=says):
        samples(tmp_path)


def test_new_packages_have_good_names_and_overwrite_nothing(tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["adapter", "new", "solar-box-2", "--folder", str(tmp_path / "a")])
    assert done.exit_code == 0 and (tmp_path / "a" / "src" / "flexrelay_solar_box_2" / "adapter.py").is_file()
    project = tomllib.loads((tmp_path / "a" / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["flexrelay.adapters"] == {
        "solar_box_2": "flexrelay_solar_box_2:make_adapter"
    }
    assert "SolarBox2Adapter" in (tmp_path / "a" / "src" / "flexrelay_solar_box_2" / "adapter.py").read_text()
    for path in (tmp_path / "a").rglob("*"):
        assert "@@" not in str(path) and (path.is_dir() or "@@" not in path.read_text())
    again = run(app, ["adapter", "new", "solar-box-2", "--folder", str(tmp_path / "a")])
    assert again.exit_code == 2 and "exists already" in " ".join(again.output.split())
    for name in ("Solar", "9box", "a--b", "a b", "../x", "", "a-", "class\n"):
        assert run(app, ["adapter", "new", name, "--folder", str(tmp_path / "b")]).exit_code == 2, name
    assert not (tmp_path / "b").exists()
