"""Ends a test's network when the test process is gone, also when that was killed.

A process of its own holds one end of a pipe; the end of the pipe is the end of the test process. `python -m
support.guardian FOLDER` ends the network in FOLDER then; a line on the pipe before that says that nothing is to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexrelay.network import Network, NetworkError

TRIES = 30


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """While the block runs the network in `folder` does not outlive this process. The block ends the network itself."""
    environment = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    guardian = subprocess.Popen(
        [sys.executable, "-m", "support.guardian", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends the tests' whole group leaves it
        env=environment,
    )
    try:
        yield
    finally:
        guardian.communicate(b"done\n")


def end_with(owner: int) -> None:
    """End this process when the process `owner` is gone."""
    threading.Thread(target=_watch, args=(owner,), daemon=True).start()


def _watch(owner: int) -> None:
    while True:
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            os._exit(3)
        time.sleep(0.5)


def _main(folder: Path) -> None:
    if sys.stdin.readline():
        return
    for _ in range(TRIES):
        if not folder.exists():
            return
        try:
            network = Network.opened(folder)
            network.down()
            time.sleep(1)  # what was being started when the test died
            network.down()
            return
        except NetworkError:  # a command of the test still holds the folder, or there is no network so far
            time.sleep(1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
