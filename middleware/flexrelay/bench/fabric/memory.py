"""Memory of a gateway with its relay, and of its chaincode, at full load of signed intents.

Both are asked after half of the time and at the end: what grows with time shows as a difference. This process
carries the intents through outbox, relay and client. `FLEXRELAY_GROWTH_S` is how long (600 s without).
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Final

from flexrelay.bench import Result
from flexrelay.bench.fabric import usage
from flexrelay.bench.fabric.ground import ORG
from flexrelay.bench.fabric.site import Site, founded
from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox
from flexrelay.relay import Relay
from flexrelay.store import Store

IN_FLIGHT: Final = 64


def run() -> list[Result]:
    """fabric_memory: MB of the gateway and relay at the end; fabric_memory_chaincode; the ratio is the growth since
    half time."""
    seconds = float(os.environ.get("FLEXRELAY_GROWTH_S", "600"))
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        half, end, count = asyncio.run(_measure(Path(folder), seconds))
    return [
        {
            "name": name,
            "value": end[part],
            "unit": "MB",
            "ratio": end[part] / half[part],
            "against": f"{part} after half of {seconds:.0f} s; {count} intents in all",
        }
        for name, part in (("fabric_memory", "gateway"), ("fabric_memory_chaincode", "chaincode"))
    ]


async def _measure(folder: Path, seconds: float) -> tuple[dict[str, float], dict[str, float], int]:
    """(MB at half time, MB at the end, intents committed)."""
    count = 0
    async with founded() as site, Store(folder / "store.db", [OUTBOX]) as store:
        outbox = Outbox(store, "bench")
        async with Relay(site.ledger, outbox):
            end = time.monotonic() + seconds

            async def carry(worker: int) -> None:
                nonlocal count
                number = 0
                while time.monotonic() < end:
                    number += 1
                    name = f"{worker}-{number}"
                    intent = await site.intent("bench.put", {"name": name, "value": "v" * 200}, name)
                    outcome = await outbox.wait(await outbox.add(intent))
                    if not isinstance(outcome, CommittedIntent):
                        raise RuntimeError(f"an intent was not committed: {outcome}")
                    count += 1

            async with asyncio.TaskGroup() as group:
                for worker in range(IN_FLIGHT):
                    group.create_task(carry(worker))
                await asyncio.sleep(seconds / 2)
                half = _memory(site)
            return half, _memory(site), count


def _memory(site: Site) -> dict[str, float]:
    chaincode = usage.pids_of(site.ground)[f"flexrelay_1.{ORG}"]
    return {"gateway": usage.resident_mb([os.getpid()]), "chaincode": usage.resident_mb(chaincode)}
