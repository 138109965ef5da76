"""A peer's state, kept and brought back by Fabric's ledger snapshots.

A snapshot holds a channel's public state and the hashes of private values at one block, not the blocks before it. The
peer that is restored fetches later blocks from the orderers and private values from other members' peers.
"""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

from flexrelay.network.commands import PeerCommands, patiently
from flexrelay.network.errors import CommandFailed, NetworkError
from flexrelay.network.plan import Plan, running_contracts
from flexrelay.network.waiting import until

MANIFEST: Final = "backup.json"
_VERSION: Final = 1
_LONG_S: Final = 600.0


def backup(plan: Plan, peer: PeerCommands, to: Path) -> dict[str, int]:
    """Write a snapshot of each of the peer's channels to the new folder `to`. Channel → its last block.

    Raises NetworkError when `to` exists.
    """
    if to.exists():
        raise NetworkError(f"{to} exists already; name another folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        blocks = {}
        for channel in peer.channels():
            block = _snapshot(plan, peer, channel)
            shutil.copytree(_completed(plan, peer, channel) / str(block), draft / channel)
            blocks[channel] = block
        manifest = {"v": _VERSION, "network": plan.spec.name, "peer": peer.name, "blocks": blocks}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1))
        draft.rename(to)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return blocks


def read_manifest(folder: Path, network: str, peer: str) -> dict[str, int]:
    """Channel → block of a backup. Raises NetworkError when it is none of this network and of this organisation."""
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text())
        found = (manifest["v"], manifest["network"], str(manifest["peer"]))
        blocks = {str(channel): int(block) for channel, block in manifest["blocks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise NetworkError(f"{folder} holds no backup of a peer; name a folder that `backup` wrote") from None
    if found[:2] != (_VERSION, network):
        raise NetworkError(f"{folder} is a backup of the network {found[1]} (version {found[0]}), not of {network}")
    missing = [channel for channel in blocks if not (folder / channel).is_dir()]
    if missing:
        raise NetworkError(f"{folder}: the snapshot of {', '.join(missing)} is missing")
    if found[2].partition(".")[2] != peer.partition(".")[2]:
        raise NetworkError(f"{folder} is of {found[2]}; a peer of another organisation would lack its private values")
    return blocks


def set_aside(data: Path) -> Path | None:
    """Move a peer's data away; where it is now, None when there was none."""
    if not data.exists():
        return None
    number = 1
    while (aside := data.with_name(f"{data.name}.replaced-{number}")).exists():
        number += 1
    return data.rename(aside)


def join(plan: Plan, peer: PeerCommands, folder: Path, blocks: dict[str, int]) -> None:
    """Let an empty running peer join its channels from a backup, with its packages."""
    for contract, org in running_contracts(plan.spec):
        if org == peer.org:
            peer.install(plan.folder.package(contract.label, org))
    for channel in sorted(blocks):
        path = str((folder / channel).absolute())
        patiently(partial(peer.run, "channel", "joinbysnapshot", "--snapshotpath", path))
        until(partial(_joined, peer, channel), f"{peer.name} has not joined {channel} from its snapshot", _LONG_S)


def _joined(peer: PeerCommands, channel: str) -> bool:
    return "No joinbysnapshot operation" in peer.run("channel", "joinbysnapshotstatus") and channel in peer.channels()


def _snapshot(plan: Plan, peer: PeerCommands, channel: str) -> int:
    """Have a snapshot made at the newest block, and wait for it. The block's number."""
    before = peer.height(channel) - 1
    place = _completed(plan, peer, channel)
    if not (place / str(before)).is_dir():
        arguments = ("--peerAddress", peer.address, "--tlsRootCertFile", peer.tls_root)
        try:
            peer.run("snapshot", "submitrequest", "-c", channel, "-b", "0", *arguments)
        except CommandFailed as error:
            if "duplicate snapshot request" not in error.output:
                raise
    found: list[int] = []

    def there() -> bool:
        found[:] = [int(entry.name) for entry in place.iterdir() if int(entry.name) >= before] if place.is_dir() else []
        return bool(found)

    until(there, f"{peer.name}: no snapshot of {channel}", _LONG_S)
    return max(found)


def _completed(plan: Plan, peer: PeerCommands, channel: str) -> Path:
    return plan.folder.data(peer.name) / "snapshots" / "completed" / channel
