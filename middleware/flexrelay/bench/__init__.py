"""Benchmarks that ship with the program: `flexrelay bench` runs them and prints one `Result` per figure.

Each benchmark is a module with `run() -> list[Result]`. Times are CPU seconds of this process, the best of a few
rounds: other work on the machine makes a round slower, never faster.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypedDict


class Result(TypedDict):
    """One figure: `value` in `unit`; `ratio` is value compared with what `against` names (0.0 and "" without one)."""

    name: str
    value: float
    unit: str
    ratio: float
    against: str


def in_process(module: str, *arguments: str) -> str:
    """What `python -m module` prints, in a process of its own: so nothing that another figure left counts.

    Raises RuntimeError with the end of what it says when it fails.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} failed: {done.stderr[-2000:]}")
    return done.stdout.strip()


def cpu_seconds(work: Callable[[], Any], *, rounds: int = 5) -> float:
    """The least CPU time of `work` over `rounds` runs, without the garbage collector's pauses."""
    best = float("inf")
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            start = time.process_time()
            work()
            best = min(best, time.process_time() - start)
    finally:
        if enabled:
            gc.enable()
    return best
