"""Which ledger a folder has, as its configuration names it."""

import sys
from pathlib import Path

import pytest
from support.pilot import flexrelay


@pytest.mark.parametrize("command", ["init", "run"])
def test_fabric_without_its_packages_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setitem(sys.modules, "flexrelay.ledger.fabric", None)
    profile = tmp_path / "dso.toml"
    profile.write_text("")
    result = flexrelay("init", tmp_path / "data", "--network", "pilot", "--org", "dso", "--profile", f"dso={profile}")
    if command == "run":
        result = flexrelay("run", tmp_path / "data")
    assert result.exit_code == 2, result.output
    assert "install flexrelay[fabric]" in result.stderr
