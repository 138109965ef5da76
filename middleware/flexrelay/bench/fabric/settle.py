"""The settlement of a market interval that touches 10,000 keys, in one transaction of the real path."""

import asyncio
import statistics
from typing import Final

from flexrelay.bench import Result
from flexrelay.bench.fabric.site import founded

KEYS: Final = 10_000
ROUNDS: Final = 3


def run() -> list[Result]:
    """fabric_settle_10k_keys: seconds from the signed intent to its block, and the same of writing the keys first."""
    opened, settled = asyncio.run(_measure())
    text = f"{KEYS} keys read, checked and written; block cut of 100 ms included"
    return [
        {"name": "fabric_settle_10k_keys", "value": settled, "unit": "s", "ratio": 0.0, "against": text},
        {
            "name": "fabric_open_10k_keys",
            "value": opened,
            "unit": "s",
            "ratio": 0.0,
            "against": "the same keys written",
        },
    ]


async def _measure() -> tuple[float, float]:
    opened, settled = [], []
    async with founded() as site:
        for number in range(ROUNDS):
            args = {"interval": f"i{number}", "count": KEYS}
            opened.append(await site.commit("bench.open", args, f"open-{number}"))
            settled.append(await site.commit("bench.settle", args, f"settle-{number}"))
    return statistics.median(opened), statistics.median(settled)
