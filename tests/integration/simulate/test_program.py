"""`flexrelay simulate` with every simulator that is installed: it says what is wrong with its settings."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

from support.simulated import PROFILE
from typer.testing import CliRunner

from flexrelay.cli.main import app
from flexrelay_sdk.quality.installed import SIMULATORS


def test_a_setting_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "day.json").write_text(json.dumps(PROFILE))
    names = sorted(point.name for point in entry_points(group=SIMULATORS))
    assert {"mqtt", "lwm2m", "opcua", "opcua_pubsub", "sparkplug", "ultralight", "fiware_json"} <= set(names)
    for name in names:
        options = ["--protocol", name, "--profile", str(tmp_path / "day.json"), "--set", "nonsense=1", "--json"]
        answer = CliRunner().invoke(app, ["simulate", *options])
        assert answer.exit_code == 2, f"{name}: {answer.output}"
        message = json.loads(answer.stdout.splitlines()[-1])["error"]["message"]
        assert "nonsense" in message or "token" in message, f"{name}: {message}"
