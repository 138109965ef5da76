"""A gateway in a process of its own: PubSub adapter, ingest, journal. Arguments: folder, the section and the
credentials (JSON)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from flexrelay.ingest import Enrolment, Ingest, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.opcua_pubsub import make_adapter
from flexrelay_schemas.did import Create, key_hash

KEY = "z" + "1" * 45


async def gateway(folder: Path, section: dict[str, Any], credentials: list[str]) -> None:
    registry = Registry("net", "dso")
    for number, credential in enumerate(credentials):
        create = Create(network="net", kind="device", key=KEY, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
        did = create.did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": KEY, "version": 1})
        registry.enrol(Enrolment(did, (("opcua_pubsub", credential),), unsigned=True))
    adapter = make_adapter("plant", section, folder, NativeCodec())
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        await adapter.run(Ingest(registry, journal, checks, lambda: 1_700_000_900_000))


if __name__ == "__main__":
    asyncio.run(gateway(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
