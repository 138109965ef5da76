"""The settlement of a market interval that touches 10,000 keys, in one transaction of the real path."""

import asyncio
import statistics
import time
from typing import Final

from flexrelay.bench import Result
from flexrelay.bench.fabric import usage
from flexrelay.bench.fabric.site import founded

KEYS: Final = 10_000
ROUNDS: Final = 3


def run() -> list[Result]:
    """fabric_settle_10k_keys: seconds from the signed intent to its block, and the same of writing the keys first."""
    opened, settled, cpu = asyncio.run(_measure())
    text = f"{KEYS} keys read, checked and written; block cut of 100 ms included"
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cpu.items())
    busy = f"CPU seconds of one settlement: {parts}"
    found = [
        ("fabric_settle_10k_keys", settled, text),
        ("fabric_settle_10k_keys_cpu", sum(cpu.values()), busy),
        ("fabric_open_10k_keys", opened, "the keys' first write"),
    ]
    return [{"name": name, "value": value, "unit": "s", "ratio": 0.0, "against": said} for name, value, said in found]


async def _measure() -> tuple[float, float, dict[str, float]]:
    """Seconds of writing and of settling, and the CPU seconds of one settlement by process."""
    opened, settled = [], []
    cpu: dict[str, float] = {}
    async with founded() as site:
        for number in range(ROUNDS):
            args = {"interval": f"i{number}", "count": KEYS}
            opened.append(await site.commit("bench.open", args, f"open-{number}"))
            before, own = usage.cpu_of(site.ground), time.process_time()
            settled.append(await site.commit("bench.settle", args, f"settle-{number}"))
            for name, seconds in usage.used(before, usage.cpu_of(site.ground)).items():
                part = name.partition("_")[0]
                cpu[part] = cpu.get(part, 0.0) + seconds / ROUNDS
            cpu["client"] = cpu.get("client", 0.0) + (time.process_time() - own) / ROUNDS
    return statistics.median(opened), statistics.median(settled), cpu
