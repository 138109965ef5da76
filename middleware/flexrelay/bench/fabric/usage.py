"""CPU time and memory of processes, from /proc."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from flexrelay.network import Network

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds (user and system) that these processes have used so far."""
    return sum(_ticks(pid) for pid in pids) * _TICK_S


def resident_mb(pids: Iterable[int]) -> float:
    """MB of memory that these processes hold now; pages that they share count for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pids_of(network: Network) -> dict[str, tuple[int, ...]]:
    """The processes of a network with their children, by name."""
    return {name: found.pids for name, found in network.processes.running().items()}


def used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before.get(name, 0.0) for name in after}


def cpu_of(network: Network) -> dict[str, float]:
    """CPU seconds so far of each process of a network."""
    return {name: cpu_s(pids) for name, pids in pids_of(network).items()}


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
