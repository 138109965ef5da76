"""Our gateway client under load, as a process of its own: puts with so many in flight, followed to their blocks.

`python -m flexrelay.bench.fabric.load PROFILE --count N --in-flight N …` prints one JSON object as the Go client does:
transactions, invalid, seconds, cpu_s, latency_ms.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flexrelay.collector import settle
from flexrelay.ledger.fabric import FabricLedger, Limits
from flexrelay.ledger.port import Call, Checkpoint, TxEvents, Validation

Intent = Callable[[int], Awaitable[bytes]]


class Outcomes:
    """Who waits for which transaction."""

    def __init__(self) -> None:
        self._seen: dict[str, TxEvents] = {}
        self._wanted: dict[str, asyncio.Future[TxEvents]] = {}

    async def follow(self, ledger: FabricLedger, height: int) -> None:
        async for item in ledger.events(Checkpoint(height)):
            waiting = self._wanted.pop(item.tx_id, None)
            if waiting is None:
                self._seen[item.tx_id] = item
            elif not waiting.done():
                waiting.set_result(item)

    async def of(self, tx_id: str) -> TxEvents:
        found = self._seen.pop(tx_id, None)
        if found is not None:
            return found
        waiting: asyncio.Future[TxEvents] = asyncio.get_running_loop().create_future()
        self._wanted[tx_id] = waiting
        return await waiting


async def puts(ledger: FabricLedger, count: int, in_flight: int, intent: Intent) -> dict[str, Any]:
    """Carry `count` intents, so many at once; each ends in its block."""
    outcomes = Outcomes()
    following = asyncio.create_task(outcomes.follow(ledger, await ledger.height()))
    numbers = iter(range(count))
    latencies: list[float] = []
    invalid = 0

    async def carry() -> None:
        nonlocal invalid
        for number in numbers:
            begin = time.perf_counter()
            prepared = await ledger.prepare(Call(await intent(number)))
            await ledger.submit(prepared.envelope)
            outcome = await outcomes.of(prepared.tx_id)
            invalid += outcome.validation is not Validation.VALID
            latencies.append((time.perf_counter() - begin) * 1000)

    started, before = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(carry())
    seconds, used = time.perf_counter() - started, time.process_time() - before
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    latencies.sort()
    return {
        "transactions": count,
        "invalid": invalid,
        "seconds": seconds,
        "cpu_s": used,
        "latency_ms": {
            "median": latencies[count // 2],
            "p95": latencies[count * 95 // 100],
            "max": latencies[-1],
        },
    }


async def _main(arguments: argparse.Namespace) -> dict[str, Any]:
    value = b"v" * arguments.bytes

    async def intent(number: int) -> bytes:
        return b"%s-%07d\0%s" % (arguments.prefix.encode(), number, value)

    limits = Limits(in_flight=max(64, arguments.in_flight))
    async with FabricLedger.open(arguments.profile, limits=limits) as ledger:
        settle()  # as a running gateway does
        return await puts(ledger, arguments.count, arguments.in_flight, intent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--prefix", default="py")
    print(json.dumps(asyncio.run(_main(parser.parse_args()))))
