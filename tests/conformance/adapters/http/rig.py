"""The HTTP adapter's counterpart: a device on httpx."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from support.http_device import CommandPoller, HttpDevice, free_port

from flexrelay_adapters.http import HttpAdapter, make_adapter
from flexrelay_sdk import Adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

TOKEN = "a-long-token-of-meter-1"


def tokens(**named: str) -> str:
    return "".join(f"{name}:{hashlib.sha256(token.encode()).hexdigest()}\n" for name, token in named.items())


class HttpRig(Rig):
    credential = "meter1"
    secret = TOKEN
    memory_bound_bytes = 6 * 2**20
    flood_bytes = 12 * 2**20

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        (folder / "tokens").write_text(tokens(meter1=TOKEN))
        self._acknowledged: set[int] = set()
        url, headers = f"http://127.0.0.1:{self._port}", {"authorization": f"Bearer {TOKEN}"}
        self._device = HttpDevice(url, headers, self._taken)
        self._poller = CommandPoller(self._device.client, "/commands")

    def _taken(self, payload: bytes) -> None:
        self._acknowledged.add(json.loads(payload)["p"])

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Rig]:
        rig = cls(folder)
        async with rig._device.sending("/readings"):
            await rig.wake()
            try:
                yield rig
            finally:
                await rig.sleep()

    def adapter(self, **changes: Any) -> HttpAdapter:
        section: dict[str, Any] = {
            "port": self._port,
            "tokens_file": "tokens",
            "max_body_bytes": 2**16,
            "codec": {
                "kind": "json",
                "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
                "observed_at": {"pointer": "/t", "form": "ms", "required": False},
            },
            "commands": "/commands",
            "command_repeat_s": 0.3,
            **changes,
        }
        return make_adapter("push", section, self._folder, NoNativeCodec())

    def bounded_adapter(self) -> HttpAdapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18)

    async def send(self, number: int) -> None:
        await self.send_raw(b'{"p": %d}' % number)

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(b'{"p": %d, "t": %d}' % (number, at_ms))

    async def send_raw(self, payload: bytes) -> None:
        self._device.queue.put_nowait(payload)

    async def flood(self, total_bytes: int) -> int:
        def payload(number: int, padding: str) -> bytes:
            return json.dumps({"p": number, "x": padding}).encode()

        return await self._device.flood("/readings", payload, total_bytes)

    def acknowledged(self) -> set[int]:
        return self._acknowledged

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [
            (b"", "not_json"),
            (b"\xff\xfe", "not_utf8"),
            (b'{"p": 1', "not_json"),
            (b'{"p": NaN}', "not_a_number"),
            (b'{"q": 1}', "missing_field"),
            (b'{"p": 1, "p": 2}', "duplicate_name"),
            (b"[" * 50_000, "not_json"),
            (b'{"p": 1,"x":"' + b"x" * 70_000 + b'"}', ""),  # 413
        ]

    async def intrude(self, adapter: Adapter) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=60) as stranger:
            for headers in ({}, {"authorization": "Bearer " + TOKEN + "x"}, {"authorization": "Basic eDp5"}):
                answer = await stranger.post("/readings", content=b'{"p": 99}', headers=headers)
                assert answer.status_code == 401

    async def behave(self, behaviour: Behaviour) -> None:
        self._poller.behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return self._poller.acts

    async def sleep(self) -> None:
        await self._poller.sleep()

    async def wake(self) -> None:
        await self._poller.wake()
