"""Nothing that a test run starts outlives it, however it ends.

Everything started by the run inherits a mark in its environment (native networks' processes too, which are nobody's
children). A watcher holds the end of a pipe of the run's process: when that is gone (finished, killed, crashed), the
watcher ends what still carries the mark.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "FLEXRELAY_TEST_RUN"
_GRACE_S = 2.0
"""What ends by itself with the run has so long."""

_pipes: list[int] = []


def watched() -> None:
    """Have this process watched, and mark what it starts. Once in a run: workers of a run are watched with it."""
    if MARK in os.environ or not Path("/proc/self/environ").exists():
        return
    mark = secrets.token_hex(8)
    reading, writing = os.pipe()
    subprocess.Popen(
        [sys.executable, __file__, mark],
        stdin=reading,
        stdout=subprocess.DEVNULL,  # whoever reads the run's output waits for everybody who holds it
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the run's group is not for it
    )
    os.close(reading)
    _pipes.append(writing)  # not inherited: it closes with this process alone
    os.environ[MARK] = mark


def marked(mark: str) -> list[int]:
    """Processes that carry the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return found


def main(mark: str) -> None:
    while os.read(0, 4096):
        pass
    time.sleep(_GRACE_S)
    while left := marked(mark):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
