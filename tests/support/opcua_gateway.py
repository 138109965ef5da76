"""A gateway in a process of its own: OPC UA adapter, ingest, journal. Arguments: folder, the section (JSON)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from flexrelay.ingest import Enrolment, Ingest, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_schemas.did import Create, key_hash

KEY = "z" + "1" * 45


async def gateway(folder: Path, section: dict[str, Any]) -> None:
    config = OpcuaConfig.from_section("plant", section)
    registry = Registry("net", "dso")
    for number, name in enumerate(sorted(config.devices)):
        create = Create(network="net", kind="device", key=KEY, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
        did = create.did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": KEY, "version": 1})
        registry.enrol(Enrolment(did, (("opcua", config.credential(name)),), unsigned=True))
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        ingest = Ingest(registry, journal, checks, lambda: 10**13)
        ingest.limits = type(ingest.limits)(stale_ms=10**13)
        await OpcuaAdapter(config).run(ingest)


if __name__ == "__main__":
    asyncio.run(gateway(Path(sys.argv[1]), json.loads(sys.argv[2])))
