"""A gateway's reading path in one process, made to be killed: LwM2M adapter → ingest → SQLite journal."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from flexrelay.ingest import Enrolment, Ingest, Limits, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay_adapters.lwm2m import make_adapter
from flexrelay_schemas.did import Create, key_hash

from .lwm2m_devices import START, address

NETWORK = "simnet"
PUBLIC = "z" + "2" * 48


def registry(count: int) -> Registry:
    """Devices by their addresses."""
    devices = Registry(NETWORK, "dso")
    for number in range(count):
        create = Create(network=NETWORK, kind="device", key=PUBLIC, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
        did = create.did()
        devices.apply("identity.registered", {"did": did, "kind": "device", "key": PUBLIC, "version": 1})
        devices.enrol(Enrolment(did, (("lwm2m", f"udp:{address(number)}"),), unsigned=True))
    return devices


async def main(folder: Path, port: int, count: int) -> None:
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        limits = Limits(stale_ms=10**12)
        ingest = Ingest(registry(count), journal, checks, lambda: (START + 10**6) * 1000, limits)
        section = {"coap": {"port": port}, "observe": (), "state": "registrations.db"}
        await make_adapter("field", section, folder, NativeCodec()).run(ingest)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
