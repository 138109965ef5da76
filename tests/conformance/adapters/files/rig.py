"""The other side of the file drop: a sender that writes files and renames them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flexrelay_adapters.files import FilesAdapter, make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Rig


class FilesRig(Rig):
    credential = "meter1"

    def __init__(self, folder: Path) -> None:
        self.root = folder / "drop"
        self._folder = folder
        self._numbers = itertools.count()
        (self.root / "in" / "meter1").mkdir(parents=True)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Rig]:
        yield cls(folder)

    def adapter(self, **changes: Any) -> FilesAdapter:
        section: dict[str, Any] = {
            "folder": "drop",
            "codec": {
                "kind": "json",
                "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
                "observed_at": {"pointer": "/t", "form": "ms", "required": False},
            },
            "poll_s": 0.05,
            "settle_s": 0.02,
            "backoff_s": 0.1,
            "max_file_bytes": 2**16,
            **changes,
        }
        return make_adapter("drop", section, self._folder, NoNativeCodec())

    async def send(self, number: int) -> None:
        await self.send_raw(b'{"p": %d}' % number)

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(b'{"p": %d, "t": %d}' % (number, at_ms))

    async def send_raw(self, payload: bytes) -> None:
        name = f"{next(self._numbers):09}.json"
        draft = self.root / "in" / "meter1" / f"{name}.part"
        draft.write_bytes(payload)
        draft.rename(draft.with_suffix(""))

    async def flood(self, total_bytes: int) -> int:
        count = total_bytes // 50_000
        for number in range(count):
            await self.send_raw(json.dumps({"p": number, "x": "x" * 50_000}).encode())
            await asyncio.sleep(0)
        return count

    def acknowledged(self) -> set[int]:
        done = (self.root / "done" / "meter1").glob("*.json")
        return {json.loads(path.read_text())["p"] for path in done if not path.name.endswith(".report.json")}

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [
            (b"", "not_json"),
            (b"\xff\xfe", "not_utf8"),
            (b'{"p": 1', "not_json"),
            (b"[]", "bad_items"),
            (b'{"q": 1}', "missing_field"),
            (b"[" * 50_000, "not_json"),
            (b'{"p": 1,"x":"' + b"x" * 70_000 + b'"}', "oversized"),
        ]

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        away = self._folder / "away"
        self.root.rename(away)
        try:
            yield
        finally:
            away.rename(self.root)
