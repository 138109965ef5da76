"""The Sigfox adapter's counterpart: a client that posts the backend's callbacks, with a device that asks for downlinks.
The backend itself does not run here."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from support.http_device import HttpDevice, free_port

from flexrelay_adapters.sigfox import SigfoxAdapter, make_adapter
from flexrelay_sdk import Adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

TOKEN = "a-long-token-of-the-backend"
DEVICE = "1A2B3C"
SECTION: dict[str, Any] = {
    "tokens_file": "tokens",
    "payload": {"fields": {"p": {"offset": 0, "length": 4, "type": "int"}}},
    "mapping": {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}},
    "commands": {
        "set_power": {
            "prefix": "01",
            "fields": {
                "power_w": {"offset": 1, "length": 3, "type": "int"},
                "until_ms": {"offset": 4, "length": 4, "scale": 3},
            },
        }
    },
}


def callback(number: int, asks: bool = False, extra: str = "", at_s: int = 1_463_738_400) -> bytes:
    body = {
        "device": DEVICE,
        "time": at_s,
        "data": number.to_bytes(4, "big").hex(),
        "seqNumber": number % 4096,
        "ack": asks,
        **({"extra": extra} if extra else {}),
    }
    return json.dumps(body).encode()


class SigfoxRig(Rig):
    credential = DEVICE
    secret = TOKEN
    memory_bound_bytes = 6 * 2**20
    flood_bytes = 12 * 2**20

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        (folder / "tokens").write_text(f"backend:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
        self._acknowledged: set[int] = set()
        self._device = HttpDevice(f"http://127.0.0.1:{self._port}", {"authorization": f"Bearer {TOKEN}"}, self._taken)
        self._asking: asyncio.Task[None] | None = None
        self._slept = False
        self._behaviour: Behaviour = "obey"
        self._done: dict[bytes, Act] = {}

    def _taken(self, payload: bytes) -> None:
        with suppress(ValueError, KeyError, TypeError):
            self._acknowledged.add(int(json.loads(payload)["data"], 16))

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Rig]:
        rig = cls(folder)
        async with rig._device.sending("/sigfox"):
            try:
                yield rig
            finally:
                await rig.sleep()

    def adapter(self, **changes: Any) -> SigfoxAdapter:
        section = {**SECTION, "port": self._port, "max_body_bytes": 2**16, **changes}
        return make_adapter("meters", section, self._folder, NoNativeCodec())

    def command(self) -> tuple[str, Mapping[str, int]]:
        """Asked for by the tests of commands alone: from now on the device asks for downlinks."""
        if self._asking is None and not self._slept:
            self._asking = asyncio.create_task(self._ask())
        return super().command()

    def bounded_adapter(self) -> SigfoxAdapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18)

    async def send(self, number: int) -> None:
        await self.send_raw(callback(number))

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(callback(number, at_s=at_ms // 1000))

    async def send_raw(self, payload: bytes) -> None:
        self._device.queue.put_nowait(payload)

    async def flood(self, total_bytes: int) -> int:
        def payload(number: int, padding: str) -> bytes:
            return callback(number, extra=padding)

        return await self._device.flood("/sigfox", payload, total_bytes)

    def acknowledged(self) -> set[int]:
        return self._acknowledged

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        good = callback(1)
        return [
            (b"", "not_json"),
            (b"\xff\xfe", "not_utf8"),
            (good[:-5], "not_json"),
            (b"[]", "not_an_uplink"),
            (good.replace(b"00000001", b"0000000g"), "not_an_uplink"),
            (good.replace(b"00000001", b"000001"), "too_short"),
            (good.replace(b"00000001", b"00" * 13), "wrong_length"),
            (good.replace(b"1463738400", b"-5"), "bad_time"),
            (callback(1, extra="x" * 70_000), ""),  # 413
        ]

    async def intrude(self, adapter: Adapter) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=60) as stranger:
            for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}):
                answer = await stranger.post("/sigfox", content=callback(99), headers=headers)
                assert answer.status_code == 401
                assert (await stranger.post("/sigfox/acknowledge", content=b"{}", headers=headers)).status_code == 401

    async def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return list(self._done.values())

    async def sleep(self) -> None:
        self._slept = True
        task, self._asking = self._asking, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def wake(self) -> None:
        self._slept = False
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            with suppress(httpx.TransportError):
                answer = await self._device.client.post("/sigfox", content=callback(7, asks=True))
                if answer.status_code == 200:
                    await self._heard(answer.json())
            await asyncio.sleep(0.05)

    async def _heard(self, answer: Mapping[str, Any]) -> None:
        data = bytes.fromhex(answer[DEVICE]["downlinkData"])
        assert len(data) == 8 and data[0] == 1
        if self._behaviour == "silent":
            return
        obeys = self._behaviour == "obey"
        if obeys:
            told = {"power_w": int.from_bytes(data[1:4], "big", signed=True)}
            self._done[data] = ("set_power", {**told, "until_ms": int.from_bytes(data[4:], "big") * 1000})
        told_back = {"device": DEVICE, "time": 1_463_738_401, "infoCode": 0 if obeys else 4, "infoMessage": "",
                     "downlinkAck": obeys}  # fmt: skip
        await self._device.client.post("/sigfox/acknowledge", content=json.dumps(told_back))
