"""The wall clock."""

import time


def wall_ms() -> int:
    """Wall-clock UTC milliseconds."""
    return time.time_ns() // 1_000_000
