"""Leshan's LwM2M client and server as processes that are led by lines: an implementation that is not ours.

`scripts/leshan.sh` fetches and builds them. A heap of 128 MB each; they end with their standard input.
"""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[2] / ".cache" / "leshan"


def installed() -> bool:
    return (HOME / "stamp").is_file() and shutil.which("java") is not None


needs_leshan = pytest.mark.skipif(not installed(), reason="Leshan is not built here: run scripts/leshan.sh")


class Peer:
    """One Java process. `told` are its lines so far."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.told: list[str] = []
        self._changed = asyncio.Condition()
        self._from = 0

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            async with self._changed:
                self.told.append(line.decode().strip())
                self._changed.notify_all()
        assert self._process.stderr is not None
        trouble = (await self._process.stderr.read()).decode()[-2000:]
        async with self._changed:
            self.told.append(f"ended: {trouble}")
            self._changed.notify_all()

    async def do(self, line: str, answer: str, timeout_s: float = 150.0) -> str:
        """Write a line and wait for one that begins with `answer`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()
        return await self.says(answer, timeout_s)

    async def says(self, beginning: str, timeout_s: float = 150.0) -> str:
        """The next line (after the one found last) that begins so."""

        def found() -> int:
            for index in range(self._from, len(self.told)):
                if self.told[index].startswith("ended: ") and not beginning.startswith("ended"):
                    raise AssertionError(f"Leshan {self.told[index]}")
                if self.told[index].startswith(beginning):
                    return index + 1
            return 0

        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(found)
                self._from = found()
                return self.told[self._from - 1]
        except TimeoutError:
            raise AssertionError(f"Leshan did not say {beginning!r} within {timeout_s} s, but: {self.told}") from None

    def kill(self) -> None:
        self._process.kill()


@asynccontextmanager
async def leshan(program: str, **arguments: Any) -> AsyncIterator[Peer]:
    """`program` is Device or Gateway (tests/support/leshan/src); arguments are passed as name=value."""
    process = await asyncio.create_subprocess_exec(
        "java",
        "-Xmx128m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        f"{HOME}/classes:{HOME}/lib/*",
        program,
        *(f"{name}={value}" for name, value in arguments.items()),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    peer = Peer(process)
    listening = asyncio.create_task(peer.listen())
    try:
        await peer.says("started")
        yield peer
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
