"""The processes of one network: started detached, found again by a mark, ended by nobody else.

Every process carries `FLEXRELAY_NETWORK_PROCESS=<network's id>/<name>` in its environment from its first moment on. So
it is known without a file of pids: not one that was started just before its starter was killed is overlooked, and no
stranger that has inherited a pid is touched.
"""

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


@dataclass(frozen=True, slots=True)
class Program:
    """What to start under a name. `environment` is all that it gets beside PATH and HOME."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


class Processes:
    """The processes of the network with this id; their output goes to `logs`/<name>.log."""

    def __init__(self, network_id: str, logs: Path) -> None:
        self._id = network_id
        self._logs = logs

    def running(self) -> dict[str, list[int]]:
        """Name → its pids, the parent first."""
        found: dict[str, list[tuple[int, int]]] = {}
        for pid, parent, mark in _marked(f"{self._id}/"):
            found.setdefault(mark.partition("/")[2], []).append((pid, parent))
        return {
            name: [pid for pid, _ in sorted(entries, key=lambda entry: _inside(entry[1], entries))]
            for name, entries in found.items()
        }

    def start(self, program: Program) -> None:
        """Start it in a session of its own, without a parent that waits for it."""
        self._logs.mkdir(parents=True, exist_ok=True)
        program.folder.mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        environment |= {**program.environment, MARK: f"{self._id}/{program.name}"}
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
        running = {name: pids for name, pids in self.running().items() if wanted is None or name in wanted}
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
        pids = self.running().get(name, [])
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return bool(pids)

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


def _inside(parent: int, entries: Sequence[tuple[int, int]]) -> bool:
    """Whether this parent is itself one of them."""
    return any(parent == pid for pid, _ in entries)


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
