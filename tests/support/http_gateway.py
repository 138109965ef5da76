"""A gateway's reading path in one process, made to be killed: HTTP adapter → ingest → SQLite journal."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from flexrelay.ingest import Enrolment, Ingest, Limits, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay_adapters.http import make_adapter
from flexrelay_schemas.did import Create, key_hash

NETWORK = "simnet"
PUBLIC = "z" + "2" * 48
START_MS = 1_700_000_000_000


def registry(count: int) -> Registry:
    """Devices by their names."""
    devices = Registry(NETWORK, "dso")
    for number in range(count):
        create = Create(network=NETWORK, kind="device", key=PUBLIC, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
        did = create.did()
        devices.apply("identity.registered", {"did": did, "kind": "device", "key": PUBLIC, "version": 1})
        devices.enrol(Enrolment(did, (("http", f"meter{number}"),), unsigned=True))
    return devices


async def main(folder: Path, port: int, count: int) -> None:
    """Reads `folder`/tokens."""
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        ingest = Ingest(registry(count), journal, checks, lambda: START_MS + 10**9, Limits(stale_ms=10**12))
        registers = {"import_j": {"pointer": "/e", "unit": "J"}}
        codec = {"kind": "json", "observed_at": {"pointer": "/t", "form": "ms"}, "registers": registers}
        section = {"port": port, "tokens_file": "tokens", "codec": codec}
        await make_adapter("push", section, folder, NativeCodec()).run(ingest)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
