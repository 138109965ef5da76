"""Waiting for what other processes do."""

import time
from collections.abc import Callable
from typing import Final

from flexrelay.network.errors import NetworkError

_POLL_S: Final = 0.05


def until(done: Callable[[], bool], problem: str, seconds: float = 120.0) -> None:
    """Return when `done`. Raises NetworkError with the problem after that time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise NetworkError(f"{problem} after {seconds:.0f} s")
        time.sleep(_POLL_S)
