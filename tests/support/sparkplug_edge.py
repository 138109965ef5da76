"""An edge node of sparkplug-client in a process of its own: from .cache/sparkplug, told what to do line by line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flexrelay.demo.broker import Account

HOME = Path(__file__).parents[2] / ".cache" / "sparkplug"
PROGRAM = Path(__file__).parent / "sparkplug" / "edge.js"
GROUP, NODE, PASSWORD = "plant", "edge1", "secret-of-the-edge"
HOST, HOST_SECRET = "flexrelay-dso", "secret-of-the-host"
ACCOUNTS = (
    Account(
        NODE,
        PASSWORD,
        read=(f"spBv1.0/{GROUP}/NCMD/{NODE}/#", f"spBv1.0/{GROUP}/DCMD/{NODE}/#", "spBv1.0/STATE/#"),
        write=(f"spBv1.0/{GROUP}/+/{NODE}", f"spBv1.0/{GROUP}/+/{NODE}/+"),
    ),
    Account(
        HOST,
        HOST_SECRET,
        read=("spBv1.0/#",),
        write=("spBv1.0/+/NCMD/+", "spBv1.0/+/DCMD/+/+", f"spBv1.0/STATE/{HOST}"),
    ),
)


def need_sparkplug_client() -> None:
    """Skip where it is not installed: scripts/sparkplug.sh does that."""
    if shutil.which("node") is None or not (HOME / "node_modules" / "sparkplug-client").is_dir():
        pytest.skip("sparkplug-client is not installed: scripts/sparkplug.sh (needs Node.js)")


class Edge:
    """`events` are those that came, in order; `acts` what devices were told and did."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def started(
        cls,
        port: int,
        log: Path,
        *,
        devices: Sequence[str] = ("meter1",),
        aliases: bool = True,
        primary: bool = True,
        compress: bool = False,
    ) -> AsyncIterator[Edge]:
        """Connected to the broker. With `primary` it holds back what it measures until the host is online."""
        need_sparkplug_client()
        options: dict[str, Any] = {
            "port": port, "username": NODE, "password": PASSWORD, "group": GROUP, "node": NODE,
            "devices": list(devices), "aliases": aliases, "compress": compress,
        }  # fmt: skip
        if primary:
            options["host"] = HOST
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                "node",
                str(PROGRAM),
                json.dumps(options),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "SPARKPLUG_HOME": str(HOME)},
                limit=2**24,
            )
        edge = cls(process)
        try:
            await edge.until("connected")
            yield edge
        finally:
            await edge.stop()

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def do(self, what: str, **rest: Any) -> dict[str, Any]:
        self._count += 1
        number, future = self._count, asyncio.get_running_loop().create_future()
        self._answers[number] = future
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "what": what, **rest}).encode() + b"\n")
        await self._process.stdin.drain()
        answer: dict[str, Any] = await asyncio.wait_for(future, 150)
        assert "error" not in answer, answer["error"]
        return answer

    async def send(self, number: int, device: str = "meter1", **more: Any) -> dict[str, Any]:
        return await self.do("send", device=device, number=number, **more)

    async def raw(self, payload: bytes, device: str = "meter1") -> None:
        await self.do("raw", device=device, data=base64.b64encode(payload).decode())

    def count(self, event: str) -> int:
        return sum(each["event"] == event for each in self.events)

    @property
    def acts(self) -> list[dict[str, Any]]:
        return [each["told"] for each in self.events if each["event"] == "act"]

    async def until(self, event: str, count: int = 1, timeout_s: float = 150.0) -> None:
        async with asyncio.timeout(timeout_s):
            while self.count(event) < count:  # noqa: ASYNC110  # another process's events
                await asyncio.sleep(0.01)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "event" in message:
                self.events.append(message)
            else:
                future = self._answers.pop(message["id"])
                with contextlib.suppress(asyncio.InvalidStateError):
                    future.set_result(message)
