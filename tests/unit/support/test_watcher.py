"""A killed test run leaves no process behind, not even one that has become init's child."""

import os
import subprocess
import sys
import time
from pathlib import Path

from support import watcher

_RUN = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from support.watcher import watched
watched()
subprocess.run(["/bin/sh", "-c", '"$@" &', "sh", "sleep", "600"], start_new_session=True)
print(os.environ["FLEXRELAY_TEST_RUN"], flush=True)
sys.stdin.read()
"""


def test_what_a_killed_run_started_is_ended() -> None:
    environment = {name: value for name, value in os.environ.items() if name != watcher.MARK}
    tests = str(Path(watcher.__file__).parents[1])
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN, tests],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None and run.stdin is not None
    mark = run.stdout.readline().strip()
    deadline = time.monotonic() + 90
    while not watcher.marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert watcher.marked(mark), "it runs while its starter does"
    run.kill()
    run.wait()
    while watcher.marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not watcher.marked(mark)
