"""`flexrelay run` as a process: up, ready, one at a time, down on a signal, up again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.pilot import answer, flexrelay

Copy = Callable[[Path], Path]
WAIT_S = 120.0
ADAPTER = """
[gateways.adapters.field]
type = "mqtt"
host = "127.0.0.1"
port = 9
client_id = "gateway-agg"
readings = ["pilot/{device}/readings"]
"""


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=WAIT_S)


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """What it logs stands in `log` beside the folder."""
    command = [sys.executable, "-c", "from flexrelay.cli import main; main()", "run", str(folder)]
    with (
        folder.with_name("log").open("w") as log,
        subprocess.Popen(
            [*command, "--http-port", "0", "--json"], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal(populated: Path, copy_of: Copy, number: signal.Signals) -> None:
    folder = copy_of(populated)
    with running(folder) as (process, up):
        assert up["organisations"] == ["agg", "dso"] and up["pid"] == process.pid
        assert get(f"{up['http']}/healthz").json() == {"status": "alive"}
        assert get(f"{up['http']}/readyz").status_code == 200
        assert 'flexrelay_devices{org="agg"} 2.0' in get(f"{up['http']}/metrics").text
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0
    assert answer("custody", "verify", folder)["verified"]


def test_ctrl_c_pressed_on_and_on_is_no_traceback(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    with running(folder) as (process, _):
        deadline = time.monotonic() + WAIT_S
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert process.poll() == 0
    log = folder.with_name("log").read_text()
    assert log.endswith("stopped\n") and "Traceback" not in log


def test_a_second_process_is_told_which_one_runs(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    with running(folder) as (process, up):
        for command in (("run", folder), ("actor", "list", folder), ("custody", "verify", folder)):
            result = flexrelay(*command)
            assert result.exit_code == 4, result.output
            assert f"in use by process {up['pid']}" in result.stderr
        init = flexrelay("init", folder, "--network", "pilot", "--org", "dso", "--org", "agg")
        assert init.exit_code == 4 and f"in use by process {up['pid']}" in init.stderr
        assert answer("ledger", "verify", folder)["verified"], "that one reads from outside"
        assert answer("ledger", "show", folder)["height"] > 5
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_what_running_gateways_have_stored_is_shown_beside_them(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    looking = (
        ("device", "list", folder),
        ("device", "show", folder, "m1"),
        ("device", "discovered", folder),
        ("deadletter", "list", folder, "--org", "agg"),
        ("market", "auctions", folder),
    )
    before = [answer(*command) for command in looking]
    assert before[1]["status"] == "active" and before[1]["last_seen"]
    with running(folder) as (process, up):
        assert [answer(*command) for command in looking] == before
        assert get(f"{up['http']}/readyz").status_code == 200
        process.terminate()
        assert process.wait(WAIT_S) == 0
    assert [answer(*command) for command in looking] == before


def test_a_broker_that_is_away_is_named_and_everything_else_goes_on(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    path = folder / "flexrelay.toml"
    path.write_text(path.read_text() + ADAPTER)  # the last gateway is agg's
    with running(folder) as (process, up):
        ready = get(f"{up['http']}/readyz")
        assert ready.status_code == 503
        (failing,) = ready.json()["failing"]
        assert failing["name"] == "agg adapter field" and "127.0.0.1:9" in failing["detail"]
        assert get(f"{up['http']}/healthz").status_code == 200
        deadline = time.monotonic() + WAIT_S
        while "WARNING flexrelay_adapters.mqtt.link [agg]: " not in folder.with_name("log").read_text():
            assert time.monotonic() < deadline, folder.with_name("log").read_text()
            time.sleep(0.1)
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_a_killed_gateway_comes_up_again(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    for _ in range(2):
        with running(folder) as (process, _):
            os.kill(process.pid, signal.SIGKILL)
            process.wait(WAIT_S)
    assert answer("custody", "verify", folder)["verified"]
    assert answer("ledger", "verify", folder)["verified"]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("[http]", "[http]\nprot = 1"), 2, "http.prot is not a known key"),
        (('network = "pilot"', 'network = "other"'), 2, "is of network pilot, not other"),
        (('folder = "ledger"', 'folder = "elsewhere"'), 2, "flexrelay init"),
    ],
)
def test_a_wrong_configuration_is_said(
    populated: Path, copy_of: Copy, change: tuple[str, str], code: int, said: str
) -> None:
    folder = copy_of(populated)
    path = folder / "flexrelay.toml"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    result = flexrelay("run", folder)
    assert result.exit_code == code, result.output
    assert said in result.stderr


def test_the_samples_adapter_is_a_good_configuration(founded: Path, copy_of: Copy) -> None:
    """Without the comment signs the sample of `init` works."""
    folder = copy_of(founded)
    path = folder / "flexrelay.toml"
    lines = path.read_text().splitlines()
    begin = [index for index, line in enumerate(lines) if line.startswith("# [gateways.adapters")]
    assert len(begin) == 2
    for start in begin:
        for index in range(start, len(lines)):
            if not lines[index].startswith("# "):
                break
            lines[index] = lines[index].removeprefix("# ")
    path.write_text("\n".join(lines) + "\n")
    for org in ("dso", "agg"):
        (folder / "secrets" / f"mqtt-{org}").write_text("secret\n")
    assert answer("device", "list", folder) == []
    with running(folder) as (process, up):
        failing = get(f"{up['http']}/readyz").json()["failing"]
        assert [item["name"] for item in failing] == ["dso adapter field", "agg adapter field"]
        process.terminate()
        assert process.wait(WAIT_S) == 0
