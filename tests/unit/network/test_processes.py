"""Processes of a network: found by their mark, ended alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGSTOP

import pytest

from flexrelay.network.processes import Processes, Program

PARENT = """import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(60)
"""
LISTENS = """import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("heard").touch(), sys.exit()))
pathlib.Path("listens").touch()
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(f"test-{tmp_path.name}", tmp_path / "logs")
    yield found
    found.stop()


def program(folder: Path, name: str, code: str = "import time; time.sleep(60)", stamp: str = "") -> Program:
    return Program(name, (sys.executable, "-c", code), {}, folder / name, stamp)


def eventually(done: object) -> None:
    deadline = time.monotonic() + 60
    while not done():  # type: ignore[operator]  # a callable
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_outlives_its_starter_and_is_found_by_another(processes: Processes, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flexrelay.network.processes import Processes, Program\n"
        f"Processes('test-{tmp_path.name}', Path({str(tmp_path / 'logs')!r})).start("
        f"Program('a', (sys.executable, '-c', 'import time; time.sleep(60)'), {{}}, Path({str(tmp_path)!r})))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(processes.running()) == ["a"]
    assert processes.stop() == ["a"]
    assert processes.running() == {}


def test_only_its_own_are_ended(processes: Processes, tmp_path: Path) -> None:
    other = Processes(f"{processes._id}-other", tmp_path / "other")
    processes.start(program(tmp_path, "a"))
    processes.start(program(tmp_path, "b"))
    other.start(program(tmp_path, "a"))
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert processes.stop(["a"]) == ["a"]
        assert list(processes.running()) == ["b"]
        assert processes.stop() == ["b"]
        assert list(other.running()) == ["a"]
        assert stranger.poll() is None
    finally:
        other.stop()
        stranger.kill()
        stranger.wait()


def test_children_go_with_their_parent(processes: Processes, tmp_path: Path) -> None:
    processes.start(program(tmp_path, "a", PARENT))
    eventually(lambda: len(processes.running()["a"].pids) == 2)
    parent = processes.running()["a"].pids[0]
    assert PARENT[:20].encode() in Path(f"/proc/{parent}/cmdline").read_bytes()
    processes.stop()
    assert processes.running() == {}


def test_one_that_hangs_is_ended(processes: Processes, tmp_path: Path) -> None:
    processes.start(program(tmp_path, "a", LISTENS))
    eventually(lambda: (tmp_path / "a" / "listens").exists())
    assert processes.signal("a", SIGSTOP)
    assert processes.stop() == ["a"]
    assert (tmp_path / "a" / "heard").exists()
    assert not processes.signal("a", SIGSTOP)


def test_its_output_is_in_its_log(processes: Processes, tmp_path: Path) -> None:
    processes.start(program(tmp_path, "a", "import sys; print('out'); print('err', file=sys.stderr)"))
    eventually(lambda: {"out", "err"} <= set(processes.tail("a").split()))


def test_a_changed_configuration_shows(processes: Processes, tmp_path: Path) -> None:
    old, new = program(tmp_path, "a", stamp="1"), program(tmp_path, "a", stamp="2")
    processes.start(old)
    assert processes.running()["a"].digest == old.digest != new.digest
