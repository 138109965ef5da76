"""Containers without Docker: what a rendered network asks for, in mount and process namespaces of its own, with an
empty, read-only root in which there is nothing but the image's programs and the files that it is given.

The images are stood in for by this machine's programs: Fabric's of the network's version, the contracts' of this
checkout. Needs root. Host names are loopback's, so every container must have ports of its own; rendered ones have.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flexrelay.network.build import Binaries

ENTRY_POINT = (sys.executable, "-m", "flexrelay_chaincode", "--config", "/etc/flexrelay/chaincode.toml")
"""Of the contracts' image, as in chaincode/package/Containerfile."""

_ROOT = Path(__file__).resolve().parents[2]
_SETUP = r"""
mount -t tmpfs -o mode=755 none "$1"
cd "$1"; work=$2; fabric=$3; readonly=$4; shift 4
mkdir -p usr proc dev tmp etc/hyperledger/fabric flexrelay
for name in bin sbin lib lib64; do
    [ -L "/$name" ] && ln -s "$(readlink "/$name")" "$name"
done
cp /etc/ld.so.cache etc/
cp "$work/hosts" etc/hosts
for place in /usr $readonly; do
    mkdir -p ".$place"
    mount --bind "$place" ".$place"
    mount -o remount,bind,ro ".$place"
done
mount --bind "$fabric/bin" usr/local/bin
mount --bind "$fabric/config" etc/hyperledger/fabric
mount --bind "$work/files" flexrelay
mount --bind "$work/data" "flexrelay/$(cat "$work/kept")"
mount -t tmpfs -o mode=1777 none tmp
mount -t proc none proc
mount --rbind /dev dev
mount -o remount,bind,ro flexrelay
mount -o remount,ro .
exec chroot . "$@"
"""


@dataclass(frozen=True)
class Container:
    """`files`: path below /flexrelay → (content, mode); `kept`: path below /flexrelay that it may write to."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, tuple[bytes, int]]
    kept: str
    user: int
    probe: Mapping[str, Any] = field(default_factory=dict)
    """How Kubernetes asks whether it works, with a port's number."""


def of_compose(document: Mapping[str, Any]) -> list[Container]:
    """The services of a compose file, as compose's loader writes it in JSON."""
    found = []
    for name, service in document["services"].items():
        binds = [volume for volume in service["volumes"] if volume["type"] == "bind"]
        kept = [_below(volume["target"]) for volume in service["volumes"] if volume["type"] == "volume"]
        assert all(volume["read_only"] for volume in binds)
        sources = {_below(volume["target"]): Path(volume["source"]) for volume in binds}
        files = {path: (source.read_bytes(), source.stat().st_mode & 0o777) for path, source in sources.items()}
        user = int(service["user"].partition(":")[0])
        environment = service.get("environment", {})
        found.append(Container(name, _command(service), environment, files, kept[0] if kept else "data", user))
    return found


def of_manifests(manifests: Iterable[Mapping[str, Any]]) -> list[Container]:
    """The pods of StatefulSets, with the files that Secrets bring."""
    manifests = list(manifests)
    secrets = {item["metadata"]["name"]: item["data"] for item in manifests if item["kind"] == "Secret"}
    found = []
    for item in manifests:
        if item["kind"] != "StatefulSet":
            continue
        pod = item["spec"]["template"]["spec"]
        [container] = pod["containers"]
        [volume] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        modes = {entry["path"]: (entry["key"], entry["mode"]) for entry in volume["items"]}
        files, kept = {}, ""
        for mount in container["volumeMounts"]:
            if mount["name"] == "files":
                key, mode = modes[mount["subPath"]]
                files[_below(mount["mountPath"])] = (b64decode(secrets[volume["secretName"]][key]), mode)
            elif mount["name"] == "data":
                kept = _below(mount["mountPath"])
        environment = {entry["name"]: entry["value"] for entry in container.get("env", ())}
        command = _command({"image": container["image"], "command": container["args"]})
        user = pod["securityContext"]["runAsUser"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        [(how, asked)] = [(key, value) for key, value in container["startupProbe"].items() if isinstance(value, dict)]
        probe = {"how": how, **asked, "port": ports[asked["port"]]}
        found.append(Container(item["metadata"]["name"], command, environment, files, kept, user, probe))
    return found


def passes(probe: Mapping[str, Any]) -> bool:
    """Ask as Kubernetes would; a container without a probe passes."""
    if not probe:
        return True
    try:
        if probe["how"] == "tcpSocket":
            socket.create_connection(("127.0.0.1", probe["port"]), 5).close()
        else:
            urllib.request.urlopen(f"http://127.0.0.1:{probe['port']}{probe['path']}", timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def running(containers: Iterable[Container], binaries: Binaries, folder: Path) -> Iterator[None]:
    """They run for the block; their output is in <folder>/<name>/log. Skips the test where this may not be done."""
    containers = list(containers)
    if subprocess.run(["unshare", "-m", "-p", "-f", "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces cannot be made here: needs root")
    processes = []
    try:
        for container in containers:
            processes.append(_start(container, [other.name for other in containers], binaries, folder / container.name))
        yield
        ended = [item.name for item, process in zip(containers, processes, strict=True) if process.poll() is not None]
        assert not ended, f"{ended} ended: see {folder}"
    finally:
        for process in processes:
            process.kill()  # and with it all in its process namespace
        for process in processes:
            process.wait()


def _start(container: Container, names: Iterable[str], binaries: Binaries, work: Path) -> subprocess.Popen[bytes]:
    shutil.rmtree(work, ignore_errors=True)
    for name in ("root", "files", "data"):
        (work / name).mkdir(parents=True)
    (work / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *names)))
    (work / "kept").write_text(container.kept)
    (work / "files" / container.kept).mkdir(parents=True)
    for path, (content, mode) in container.files.items():
        place = work / "files" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        os.chown(place, 0, container.user)  # a Secret's files are root's and the pod's group's
        place.chmod(mode)
    os.chown(work / "data", container.user, container.user)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "FABRIC_CFG_PATH": "/etc/hyperledger/fabric",
        **container.environment,
    }
    if container.command[0] == sys.executable:
        environment |= {"PYTHONPATH": str(_ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"}
    visible = dict.fromkeys((str(_ROOT), sys.base_prefix))
    isolated = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    setup = ["/bin/sh", "-euc", _SETUP, "sh", str(work / "root"), str(work), str(binaries.folder), " ".join(visible)]
    rights = [] if container.user == 0 else ["--inh-caps=-all", "--bounding-set=-all"]
    person = [
        "setpriv",
        f"--reuid={container.user}",
        f"--regid={container.user}",
        "--clear-groups",
        *rights,
        "--no-new-privs",
    ]
    with (work / "log").open("wb") as log:
        return subprocess.Popen(
            [*isolated, *setup, *person, "env", "-i", *_assignments(environment), *container.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _assignments(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _command(service: Mapping[str, Any]) -> tuple[str, ...]:
    """The official images have no entry point, the contracts' one has."""
    official = service["image"].startswith("hyperledger/")
    return (*(() if official else ENTRY_POINT), *service["command"])


def _below(path: str) -> str:
    assert path.startswith("/flexrelay/"), path
    return path.removeprefix("/flexrelay/")
