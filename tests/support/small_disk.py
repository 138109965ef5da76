"""A process' folder on a disk that can be filled: a tmpfs of its own where mounting is allowed.

Elsewhere the process itself is forbidden to let any file grow, which is what it sees of a full disk too.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOM = 48 * 1024 * 1024
_BALLAST = "ballast"


class MountedDisk:
    """`folder` lies on a tmpfs."""

    kind = "tmpfs"

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / _BALLAST

    def fill(self, pid: int) -> None:
        """Not a byte is left."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def free(self, pid: int | None) -> None:
        self._ballast.unlink()


class ForbiddenGrowth:
    """No file of the process grows while it is full."""

    kind = "limited file sizes"

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(self, pid: int | None) -> None:
        if pid is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def small_disk(folder: Path, *, mount: bool | None = None) -> Iterator[MountedDisk | ForbiddenGrowth]:
    """Nobody may use the folder when this begins and ends. Its contents stay."""
    if not (_may_mount() if mount is None else mount):
        yield ForbiddenGrowth()
        return
    aside = folder.with_name(f"{folder.name}.aside")
    folder.rename(aside)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "small-disk", str(folder)], check=True)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield MountedDisk(folder)
    finally:
        shutil.rmtree(aside)
        shutil.copytree(folder, aside, ignore=shutil.ignore_patterns(_BALLAST))
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()
        aside.rename(folder)


def _may_mount() -> bool:
    """Whether this process may mount file systems, beyond being called root."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    capabilities = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return bool(capabilities >> 21 & 1)  # CAP_SYS_ADMIN
