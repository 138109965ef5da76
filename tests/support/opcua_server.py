"""A node-opcua server in a process of its own: started from .cache/node-opcua, told what to do line by line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[2] / ".cache" / "node-opcua"
PROGRAM = Path(__file__).parent / "node-opcua" / "server.js"
CLIENT = Path(__file__).parent / "node-opcua" / "client.js"
NAMESPACE = "urn:test:node-opcua"
"""Its own namespace is its application URI."""
START_S = 240.0
"""It makes keys at its first start, and the machine may be busy."""


def need_node_opcua() -> None:
    """Skip where it is not installed: scripts/node_opcua.sh does that."""
    if shutil.which("node") is None or not (HOME / "node_modules" / "node-opcua").is_dir():
        pytest.skip("node-opcua is not installed: scripts/node_opcua.sh (needs Node.js)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class NodeServer:
    """`acknowledged` are the values in the notifications that clients have acknowledged, in order."""

    def __init__(self, folder: Path, port: int, options: Mapping[str, Any]) -> None:
        self.port = port
        self.folder = folder
        self.options = {
            "port": port,
            "pki": str(folder / "pki"),
            "security": "None",
            "uri": NAMESPACE,
            "devices": {"meter": ["power", "import"]},
            "history": True,
            "historyFile": str(folder / "history.jsonl"),
            **options,
        }
        self.acknowledged: list[float] = []
        self.notifications = 0
        """How many of them were acknowledged."""
        self.acts: list[dict[str, Any]] = []
        """What the method was called with, each command once."""
        self.certificate = Path()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._count = 0
        self._newest_ms = 0

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}/test"

    def node(self, key: str) -> str:
        return f"nsu={NAMESPACE};s={key}"

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ready = asyncio.get_running_loop().create_future()
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "node",
                str(PROGRAM),
                json.dumps(self.options),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "NODE_OPCUA_HOME": str(HOME), "NODEOPCUADEBUG": ""},
                limit=2**26,
            )
        self._reader = asyncio.create_task(self._read())
        async with asyncio.timeout(START_S):
            ready = await self._ready
        assert ready["event"] == "ready", ready
        self.certificate = Path(ready["certificate"])

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None and self._ready is not None
        async for line in self._process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # the library prints, too
            event = message.get("event") if isinstance(message, dict) else ""
            if event == "acknowledged":
                self.notifications += 1
                self.acknowledged += [value for value in message["values"] if isinstance(value, int | float)]
            elif event == "act":
                self.acts.append(message["act"])
            elif event in ("ready", "failed") and not self._ready.done():
                self._ready.set_result(message)
            elif isinstance(message, dict) and message.get("id") in self._answers:
                self._answers.pop(message["id"]).set_result(message)

    async def tell(self, do: str, **values: Any) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        self._process.stdin.write((json.dumps({"id": self._count, "do": do, **values}) + "\n").encode())
        async with asyncio.timeout(START_S):
            found: dict[str, Any] = await answer
        assert "error" not in found, found["error"]
        return found

    async def set(self, key: str, value: Any, time_ms: int | None = None, status: str | None = None) -> None:
        """At an instant (ms) of its own unless one is given: two values of one instant are one."""
        self._newest_ms = max(now_ms(), self._newest_ms + 1) if time_ms is None else time_ms
        await self.tell("set", key=key, value=value, time=self._newest_ms, status=status)

    async def stop(self) -> None:
        """At once, as a power cut does; only this process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""


@contextlib.asynccontextmanager
async def node_server(folder: Path, **options: Any) -> AsyncIterator[NodeServer]:
    need_node_opcua()
    server = NodeServer(folder, free_port(), options)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


def section(node: NodeServer, folder: Path, keys: Sequence[str] = ("power", "import"), **more: Any) -> dict[str, Any]:
    """An adapter's configuration for a server's device `meter`, with short pauses."""
    units = {"power": ("power_w", "W"), "import": ("import_j", "J"), "export": ("export_j", "J")}
    registers = {units[key][0]: {"node": node.node(f"meter.{key}"), "unit": units[key][1]} for key in keys}
    return {
        "url": node.url,
        "security": "None",
        "publishing_ms": 50.0,
        "sampling_ms": 0.0,
        "queue": 50_000,
        "pki": str(folder / "pki-gateway"),
        "state": str(folder / "state"),
        "timeout_s": 60.0,  # a machine that stands still is no lost server
        "backoff_min_s": 0.1,
        "backoff_max_s": 0.5,
        "devices": {"meter": {"registers": registers}},
        **more,
    }
