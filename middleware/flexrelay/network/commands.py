"""Fabric's own commands, run with one organisation's administrator: joining, the lifecycle, snapshots."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from flexrelay.network.build import Binaries
from flexrelay.network.errors import CommandFailed
from flexrelay.network.genesis import HOST
from flexrelay.network.material import ADMIN, Material

T = TypeVar("T")

_TIMEOUT_S: Final = 60.0
_RETRY_S: Final = 0.2
_TRANSIENT: Final = (
    "no Raft leader",
    "SERVICE_UNAVAILABLE",
    "connection refused",
    "code = Unavailable",
    "failed to create deliver client",
    "channel not found",
    "channel does not exist",
    "context deadline exceeded",
    "timed out waiting for txid",
    "failed to fetch metadata",
    "access denied",  # a peer that has not seen the block with the caller's organisation yet
)
"""What goes away while a network comes up: no leader yet, a node that does not listen yet, a block on its way."""


def patiently(work: Callable[[], T], seconds: float = 45.0) -> T:
    """Repeat what fails for a reason that passes. Raises the last CommandFailed."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except CommandFailed as error:
            passes = any(text in error.output for text in _TRANSIENT)
            if not passes or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_S)


class PeerCommands:
    """`peer …` against one peer as its organisation's administrator."""

    def __init__(self, binaries: Binaries, material: Material, name: str, port: int) -> None:
        self.name = name
        self.org = material.org
        self.address = f"{HOST}:{port}"
        self.tls_root = str(material.tls_root)
        self._program = binaries.path("peer")
        self._environment = {
            "FABRIC_CFG_PATH": str(binaries.config),
            "FABRIC_LOGGING_SPEC": "ERROR",
            "CORE_PEER_ADDRESS": self.address,
            "CORE_PEER_LOCALMSPID": material.org,
            "CORE_PEER_MSPCONFIGPATH": str(material.admin_msp),
            "CORE_PEER_TLS_ENABLED": "true",
            "CORE_PEER_TLS_ROOTCERT_FILE": self.tls_root,
        }

    def run(self, *arguments: str) -> str:
        """Standard output. Raises CommandFailed."""
        return _run([self._program, *arguments], self._environment, f"{self.name}: peer {' '.join(arguments[:3])}")

    def join(self, block: Path) -> None:
        """Join a channel by its first block; nothing when it has."""
        _unless("already exists", lambda: self.run("channel", "join", "-b", str(block)))

    def channels(self) -> list[str]:
        lines = self.run("channel", "list").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("Channels peers has joined")]

    def height(self, channel: str) -> int:
        said = self.run("channel", "getinfo", "-c", channel)
        return int(json.loads(said[said.index("{") :])["height"])

    def install(self, package: Path) -> None:
        """Install a package; nothing when it is."""
        _unless("already successfully installed", lambda: self.run("lifecycle", "chaincode", "install", str(package)))

    def committed(self, channel: str, contract: str) -> dict[str, Any] | None:
        """The committed definition {sequence, version, approvals {org: bool}, …}; None when there is none."""
        try:
            said = self.run(
                *("lifecycle", "chaincode", "querycommitted", "-C", channel, "-n", contract, "--output", "json")
            )
        except CommandFailed as error:
            if "is not defined" in error.output or "not found" in error.output:
                return None
            raise
        definition: dict[str, Any] = json.loads(said)
        return definition


class OrdererCommands:
    """`osnadmin …` against one orderer."""

    def __init__(self, binaries: Binaries, material: Material, name: str, admin_port: int) -> None:
        self.name = name
        pair = material.tls_pair(ADMIN, "admin")
        self._command = [binaries.path("osnadmin"), "channel"]
        self._options = [
            *("-o", f"{HOST}:{admin_port}", "--ca-file", str(material.tls_root)),
            *("--client-cert", str(pair.certificate), "--client-key", str(pair.key)),
        ]

    def join(self, channel: str, block: Path) -> None:
        """Join a channel by its first block; nothing when it has."""
        said = self._run("join", "--channelID", channel, "--config-block", str(block))
        if "Status: 201" not in said and "already exists" not in said:
            raise CommandFailed(f"{self.name} does not join {channel}: {said}", said)

    def _run(self, *arguments: str) -> str:
        return _run([*self._command, *arguments, *self._options], {}, f"{self.name}: osnadmin {arguments[0]}")


def _run(command: Sequence[str], environment: dict[str, str], what: str) -> str:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{what}: no end after {_TIMEOUT_S:.0f} s", "timed out") from None
    said = "\n".join(part.strip() for part in (done.stderr, done.stdout) if part.strip())
    if done.returncode:
        raise CommandFailed(f"{what}: {_last(said)}", said)
    return done.stdout if done.stdout.strip() else said


def _last(said: str) -> str:
    """The line that says why; usage texts follow it."""
    lines = [line for line in said.splitlines() if line.startswith("Error")] or said.splitlines()
    return lines[0] if lines else "no message"


def _unless(excuse: str, work: Callable[[], object]) -> None:
    try:
        work()
    except CommandFailed as error:
        if excuse not in error.output:
            raise
