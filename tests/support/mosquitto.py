"""Fixtures with a real Mosquitto: the installed one, else one in a container; without either the tests say why they
did not run.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from flexrelay.demo.broker import Account, Mosquitto, Tls, mosquitto_path

IMAGE = "eclipse-mosquitto:2"
WHY = (
    "Mosquitto is not installed (Debian: apt install mosquitto) and Docker cannot run its image: "
    "the tests against a real broker did not run"
)
_SHIM = """#!/bin/sh
# The port is the host's own and the folders stand at the same paths, so the caller sees no difference. Docker forwards
# SIGTERM to the container; what --rm removes is only the container.
exec docker run --rm --init --network host --user "$(id -u):$(id -g)" -v "{folder}:{folder}" {image} {program} "$@"
"""


@cache
def _from_docker() -> str | None:
    """Programs that run Mosquitto's image, put on the PATH for this process; None where Docker does not work.

    For machines where nothing can be installed. Needs a Docker whose host network is this machine's (Linux). Only the
    commands were tried so far, against a stand-in for Docker; not the image.
    """
    docker = shutil.which("docker")
    if docker is None:
        return None
    try:
        subprocess.run([docker, "pull", "--quiet", IMAGE], check=True, capture_output=True, timeout=180)
    except (OSError, subprocess.SubprocessError):
        return None
    shims = Path(tempfile.mkdtemp(prefix="mosquitto-in-docker-"))
    atexit.register(shutil.rmtree, shims, ignore_errors=True)
    for program in ("mosquitto", "mosquitto_passwd"):
        shim = shims / program
        shim.write_text(_SHIM.format(folder=tempfile.gettempdir(), image=IMAGE, program=program))
        shim.chmod(0o755)
    os.environ["PATH"] = f"{shims}{os.pathsep}{os.environ['PATH']}"
    return str(shims / "mosquitto")


def require_mosquitto() -> str:
    """The program's path; skips the test (in CI: fails it) when there is none."""
    program = mosquitto_path() or _from_docker()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(WHY)
        pytest.skip(WHY)
    return program


@asynccontextmanager
async def mosquitto(
    folder: Path,
    accounts: Sequence[Account],
    *,
    tls: Tls | None = None,
    max_inflight: int = 2000,
    max_payload_bytes: int = 1024 * 1024,
) -> AsyncIterator[Mosquitto]:
    """A Mosquitto of our own on a free loopback port, stopped at the end."""
    broker = Mosquitto(
        folder,
        accounts,
        program=require_mosquitto(),
        tls=tls,
        max_inflight=max_inflight,
        max_payload_bytes=max_payload_bytes,
    )
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()
