"""Any adapter's reading path in a process of its own, made to be killed: adapter → ingest → SQLite journal.

`python -m support.any_gateway FOLDER TYPE SECTION CREDENTIALS` (the last two JSON) runs it until it is killed. A line
of standard output is the number of frames of one batch that is on disk. Nothing is stale there, nothing in the future.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

from flexrelay.adapters import load_adapter
from flexrelay.ingest import Enrolment, Ingest, Limits, NoHistory, RegisterChecks, Registry
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay_schemas.did import Create, key_hash
from flexrelay_sdk import Codec, Frame, Receipt

FAR_MS = 10**13


class KilledGateway:
    """Such processes one after the other, on the journal and with the logs of one folder."""

    def __init__(self, folder: Path, kind: str, section: Mapping[str, Any], credentials: Sequence[str]) -> None:
        self.journal = folder / "journal.db"
        self._folder = folder
        self._arguments = [str(folder), kind, json.dumps(section), json.dumps(list(credentials))]
        self._process: asyncio.subprocess.Process | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[KilledGateway]:
        """Started; killed at the end, whichever process it is by then."""
        await self.start()
        try:
            yield self
        finally:
            await self.kill()

    async def start(self) -> None:
        with (self._folder / "stored").open("wb") as stored, (self._folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "support.any_gateway", *self._arguments,
                cwd=Path(__file__).parents[1], stdout=stored, stderr=log,
            )  # fmt: skip

    async def kill(self) -> None:
        """Dead when it returns. Fails when it had ended by itself; one that is dead already stays so."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        assert await process.wait() == -SIGKILL, f"the gateway ended by itself: {self._told()}"

    def check(self) -> None:
        """Fails when it has ended by itself: for whoever waits for something of it."""
        assert self._process is not None and self._process.returncode is None, f"the gateway ended: {self._told()}"

    @property
    def stored(self) -> int:
        """Frames that the newest process has put on disk."""
        return sum(map(int, (self._folder / "stored").read_bytes().rpartition(b"\n")[0].split()))

    def _told(self) -> str:
        return (self._folder / "gateway.log").read_text()[-2000:]


class _Telling:
    """The sink, which tells what is on disk."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        receipts = await self._ingest.put(frames, codec)
        print(len(frames), flush=True)
        return receipts


async def main(folder: Path, kind: str, section: Mapping[str, Any], credentials: Sequence[str]) -> None:
    adapter = load_adapter("dso", "site", {"type": kind, **section}, folder)
    registry = Registry("net", "dso")
    key = "z" + "1" * 45
    for number, credential in enumerate(credentials):
        did = Create(network="net", kind="device", key=key, next_key_hash=key_hash("-"), nonce=f"{number:032x}").did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": key, "version": 1})
        registry.enrol(Enrolment(did, ((adapter.protocol, credential),), unsigned=True))
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        await adapter.run(_Telling(Ingest(registry, journal, checks, lambda: FAR_MS, Limits(stale_ms=FAR_MS))))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])))
