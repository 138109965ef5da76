"""The processes of one network: started detached, found again by a mark, ended by nobody else.

Every process carries `FLEXRELAY_NETWORK_PROCESS=<network's id>/<name>/<digest>` in its environment from its first
moment on. So it is known without a file of pids: not one that was started just before its starter was killed is
overlooked, and no stranger that has inherited a pid is touched.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flexrelay.network.errors import NetworkError

MARK: Final = "FLEXRELAY_NETWORK_PROCESS"
_POLL_S: Final = 0.02
_TERM_S: Final = 10.0
_KILL_S: Final = 10.0
_TAIL_BYTES: Final = 4_000
_INHERITED: Final = ("PATH", "HOME", "TMPDIR", "LANG", "FLEXRELAY_TEST_RUN")
"""The last one is a test run's own mark, by which its watcher finds all that it started."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to start under a name. `environment` is all that it gets beside a few of its starter's (PATH, HOME, …)."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    stamp: str = ""
    """What its configuration says: a running one with another stamp is of an older configuration."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.stamp.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Running:
    """A process with its children, itself first."""

    pids: tuple[int, ...]
    digest: str


class Processes:
    """The processes of the network with this id; their output goes to `logs`/<name>.log."""

    def __init__(self, network_id: str, logs: Path) -> None:
        self._id = network_id
        self._logs = logs

    def running(self) -> dict[str, Running]:
        """Those that live, by name."""
        found: dict[str, list[tuple[int, int]]] = {}
        digests: dict[str, str] = {}
        for pid, parent, mark in _marked(f"{self._id}/"):
            _, name, digest = mark.split("/")
            found.setdefault(name, []).append((pid, parent))
            digests[name] = digest
        return {name: Running(_ordered(entries), digests[name]) for name, entries in found.items()}

    def start(self, program: Program) -> None:
        """Start it in a session of its own, without a parent that waits for it."""
        self._logs.mkdir(parents=True, exist_ok=True)
        program.folder.mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {**program.environment, MARK: f"{self._id}/{program.name}/{program.digest}"}
        # The shell goes at once and the program becomes init's: nothing has to reap it, and it outlives its starter.
        launch = ["/bin/sh", "-c", '"$@" &', "sh", *program.command]
        with self.log(program.name).open("ab") as log:
            done = subprocess.run(
                launch,
                env=environment,
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=False,
            )
        if done.returncode:
            raise NetworkError(f"{program.name} could not be started: {self.tail(program.name)}")

    def stop(self, names: Iterable[str] | None = None) -> list[str]:
        """End these (all without) with SIGTERM, after 10 s with SIGKILL. The names of those that ran."""
        wanted = None if names is None else set(names)
        running = [name for name in self.running() if wanted is None or name in wanted]
        for number, patience in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
            for name in running:
                self.signal(name, number)
                if number == signal.SIGTERM:
                    self.signal(name, signal.SIGCONT)  # a stopped one could not hear it
            if self._gone(set(running), patience):
                return sorted(running)
        raise NetworkError(f"{', '.join(sorted(set(running) & set(self.running())))} cannot be ended")

    def signal(self, name: str, number: signal.Signals) -> bool:
        """Send a signal to a process and its children; whether there was one."""
        found = self.running().get(name)
        for pid in found.pids if found else ():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return found is not None

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The end of its log."""
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def _gone(self, names: set[str], patience: float) -> bool:
        deadline = time.monotonic() + patience
        while names & set(self.running()):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def _ordered(entries: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The pids of (pid, parent's pid), the one whose parent is none of them first."""
    pids = {pid for pid, _ in entries}
    return tuple(pid for pid, parent in sorted(entries, key=lambda entry: (entry[1] in pids, entry[0])))


def _marked(start: str) -> list[tuple[int, int, str]]:
    """(pid, parent's pid, mark) of every living process whose mark begins so."""
    return _marked_linux(start) if sys.platform == "linux" else _marked_ps(start)


def _marked_linux(start: str) -> list[tuple[int, int, str]]:
    wanted = f"{MARK}={start}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes()  # empty when it is dead and not yet reaped
            at = environment.find(wanted)
            if at < 0 or (at > 0 and environment[at - 1]):
                continue
            mark = environment[at + len(MARK) + 1 :].split(b"\0", 1)[0].decode()
            parent = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # gone meanwhile, or somebody else's
            continue
        found.append((int(entry.name), parent, mark))
    return found


def _marked_ps(start: str) -> list[tuple[int, int, str]]:
    listing = subprocess.run(
        ["/bin/ps", "-axEww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=False
    ).stdout
    found = []
    for line in listing.splitlines():
        pid, parent, command = (*line.split(None, 2), "", "", "")[:3]
        for word in command.split():
            if word.startswith(f"{MARK}={start}"):
                found.append((int(pid), int(parent), word.partition("=")[2]))
    return found
