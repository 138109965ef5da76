"""A device on httpx: sends what is queued in order, again until it is taken, and fetches its commands."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import httpx

from flexrelay_sdk.testkit import Act, Behaviour

PADDING: Final = 50_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HttpDevice:
    """`taken` is called with every payload that got its 2xx."""

    def __init__(self, url: str, headers: Mapping[str, str], taken: Callable[[bytes], None], **client: Any) -> None:
        self.client = httpx.AsyncClient(base_url=url, headers=dict(headers), timeout=30.0, **client)
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.answers: list[httpx.Response] = []
        self._taken = taken

    @asynccontextmanager
    async def sending(self, path: str) -> AsyncIterator[HttpDevice]:
        task = asyncio.create_task(self._deliver(path))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.client.aclose()

    async def _deliver(self, path: str) -> None:
        while True:
            await self.deliver(path, await self.queue.get())

    async def deliver(self, path: str, payload: bytes) -> httpx.Response:
        """Again until the answer is none of "later"."""
        while True:
            with suppress(httpx.TransportError):
                answer = await self.client.post(path, content=payload)
                if answer.status_code not in (408, 409, 503):
                    if answer.is_success:
                        self._taken(payload)
                    self.answers = [*self.answers[-50:], answer]
                    return answer
            await asyncio.sleep(0.05)

    async def flood(self, path: str, payload_of: Callable[[int, str], bytes], total_bytes: int) -> int:
        """Payloads of a number and a padding, eight at a time; how many."""
        count = total_bytes // PADDING
        numbers = iter(range(count))

        async def sender() -> None:
            for number in numbers:
                await self.deliver(path, payload_of(number, "x" * PADDING))

        await asyncio.gather(*(sender() for _ in range(8)))
        return count


class CommandPoller:
    """Fetches commands and does what `behaviour` says; one id is done once."""

    def __init__(self, client: httpx.AsyncClient, path: str) -> None:
        self._client = client
        self._path = path
        self._task: asyncio.Task[None] | None = None
        self._told: dict[str, dict[str, Any]] = {}
        self.behaviour: Behaviour = "obey"
        self.acts: list[Act] = []

    async def sleep(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def wake(self) -> None:
        self._task = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            with suppress(httpx.TransportError):
                answer = await self._client.get(self._path, params={"wait_s": "2"})
                if answer.status_code == 200:
                    for command in answer.json()["commands"]:
                        await self._do(command)
                    continue
            await asyncio.sleep(0.05)

    async def _do(self, command: dict[str, Any]) -> None:
        name = command["command_id"]
        if self.behaviour == "silent" or time.time_ns() // 1_000_000 >= command["expires_at"]:
            return
        if name not in self._told:
            state = "acked" if self.behaviour == "obey" else "failed"
            if state == "acked":
                self.acts.append((command["name"], command["parameters"]))
            self._told[name] = {"v": 1, "command_id": name, "state": state}
        await self._client.post(f"{self._path}/results", content=json.dumps(self._told[name]))
