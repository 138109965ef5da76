"""A process in which no file may grow beyond a limit: what a full disk looks like to the ledger.

`python disk_full.py FOLDER KEYS`: prints one JSON object with what happened.
"""

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any

from conformance.ledger.harness import fresh
from integration.ledger.keys import load

from flexrelay.ledger.port import LedgerUnavailable


def limit(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


async def main(folder: Path, keys: Path, which: str) -> dict[str, Any]:
    network = load(folder, keys)
    async with network.running():
        ledger = network.connect("dso")
        written, errors = [], []
        blocks, wal = folder / "blocks.dat", folder / "state.db-wal"
        # A large value stands several times in its block, a small one costs whole pages of the state's log.
        room, value = (400_000, "v" * 50_000) if which == "blocks" else (60_000, "v")
        limit(max(blocks.stat().st_size, wal.stat().st_size) + room)
        prepared = None
        for _ in range(40):
            key = fresh()
            prepared = await network.prepare(ledger, "probe.put", key=key, value=value)
            try:
                async with asyncio.timeout(60):
                    await ledger.submit(prepared.envelope)
                    written.append([prepared.tx_id, key])
            except LedgerUnavailable as error:
                errors.append(str(error))
                if len(errors) == 3:
                    break
        size_when_full, trouble = blocks.stat().st_size, network.ledger.trouble
        limit(resource.RLIM_INFINITY)
        assert prepared is not None
        async with asyncio.timeout(60):
            while True:
                try:
                    await ledger.submit(prepared.envelope)  # the same envelope, once there is room
                    break
                except LedgerUnavailable:
                    await asyncio.sleep(0.1)
        await network.run("probe.put", key="after", value="v")
        found = [(await ledger.status(tx_id)).validation.value for tx_id, _ in written]  # type: ignore[union-attr] # Committed
        values = [await network.get(key) is not None for _, key in written]
        troubles = [trouble, network.ledger.trouble]
        seen = {"written": len(written), "errors": errors, "size": size_when_full, "found": found, "values": values}
        return seen | {"troubles": troubles}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))))
