"""What a network keeps in its folder, and the file that remembers it between two `up`.

```
network.json   id, description as applied, ports
lock           held by whoever changes the network
material/      certificates and keys, by organisation
channels/      <channel>.block (genesis), the input of configtxgen below <channel>/
contracts/     packages and configurations of chaincode processes
nodes/         data of orderers and peers
profiles/      <channel>/<organisation>.toml
logs/          one file a process
```
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from flexrelay.network.authority import write_whole
from flexrelay.network.errors import NetworkError

STATE: Final = "network.json"
_VERSION: Final = 1
_REMEDY: Final = (
    "bring it back from a copy, or end the network's processes (FLEXRELAY_NETWORK_PROCESS stands in their environment) "
    "and remove the folder"
)


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered: written before anything that depends on it is made."""

    id: str
    spec: dict[str, Any]
    ports: dict[str, int] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    """Channel → organisations in its configuration."""

    sequences: dict[str, int] = field(default_factory=dict)
    """See `flexrelay.network.lifecycle.Sequences`."""

    containers: bool = False
    """Rendered for containers: nothing of it is started here."""

    founded: bool = False
    """Whether it was up once: until then another description starts it anew."""

    v: int = _VERSION


def relative(path: Path, start: Path) -> str:
    """A path as a file in the folder `start` names it: so a network's folder may be mounted elsewhere."""
    return os.path.relpath(path, start)


class Folder:
    """Paths below a network's folder; nothing is made by asking for one."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.material = self.root / "material"
        self.channels = self.root / "channels"
        self.contracts = self.root / "contracts"
        self.nodes = self.root / "nodes"
        self.profiles = self.root / "profiles"
        self.logs = self.root / "logs"

    def genesis(self, channel: str) -> Path:
        return self.channels / f"{channel}.block"

    def package(self, label: str, org: str) -> Path:
        return self.contracts / f"{label}.{org}.tar.gz"

    def data(self, node: str) -> Path:
        return self.nodes / node

    def profile(self, channel: str, org: str) -> Path:
        return self.profiles / channel / f"{org}.toml"

    def read(self) -> State | None:
        """None where no network is. Raises NetworkError when the file is of another program or damaged."""
        path = self.root / STATE
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise NetworkError(f"{path} is damaged: {error}; {_REMEDY}") from None
        if not isinstance(value, dict) or value.get("v") != _VERSION:
            raise NetworkError(f"{path} is of another version of this program; use that one")
        try:
            return State(**value)
        except TypeError as error:
            raise NetworkError(f"{path} is damaged: {error}; {_REMEDY}") from None

    def write(self, state: State) -> None:
        write_whole(self.root / STATE, json.dumps(asdict(state), indent=1).encode())

    def new_state(self, spec: dict[str, Any]) -> State:
        """A state for a folder that has none."""
        return State(id=uuid.uuid4().hex, spec=spec)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time changes a network; the lock goes with its holder.

        Raises NetworkError when another command has it, or when the folder holds something else.
        """
        if self.root.is_dir() and not (self.root / STATE).exists():
            foreign = [entry.name for entry in self.root.iterdir()]
            if any(name != "lock" and not name.startswith(f".{STATE}.") for name in foreign):
                raise NetworkError(f"{self.root} is not empty and holds no network; name another folder")
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise NetworkError(f"another command works on {self.root}; wait until it is done") from None
            yield
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Everything in the folder, the state last, then the folder: an interrupted removal can be repeated."""
        self.empty()
        (self.root / "lock").unlink(missing_ok=True)
        self.root.rmdir()

    def empty(self) -> None:
        """Everything but the lock."""
        for entry in sorted(self.root.iterdir(), key=lambda entry: entry.name == STATE):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
