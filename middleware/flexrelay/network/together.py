"""Independent steps, a few at a time: each is a process of Fabric's that mostly waits."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_AT_ONCE: Final = 4


def together(steps: Sequence[Callable[[], object]]) -> None:
    """Run all; the first failure is raised when all have ended."""
    if not steps:
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(steps))) as pool:
        for future in [pool.submit(step) for step in steps]:
            future.result()
