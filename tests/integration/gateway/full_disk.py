"""A process with a whole site in which for a while no file may grow: what a full disk looks like to it.

`python full_disk.py FOLDER`: prints one JSON object with what happened.
"""

import asyncio
import json
import logging
import resource
import sys
from pathlib import Path
from typing import Any

from support.site import (
    NETWORK,
    PASSPHRASE,
    operator_desk,
    publish_today,
    put,
    register_device,
    site,
    until,
    write_site,
)

from flexrelay.app import Gateway
from flexrelay.founding import MarketClock, found, genesis, wallet_of
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledgers import EmbeddedHost
from flexrelay.store import StoreUnavailable
from flexrelay_sdk import SinkUnavailable

FULL_S = 4.0
BATCH = 40


def limit(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


async def main(folder: Path) -> dict[str, Any]:
    wallets = {"dso": wallet_of(folder, "dso", PASSPHRASE)}
    write_site(folder, ("dso",), anchor_every_s=1)
    async with EmbeddedLedger.open(folder / "ledger", genesis(NETWORK, wallets)) as ledger:
        await found(EmbeddedHost(ledger), NETWORK, wallets, MarketClock(), "dso")
    async with site(folder) as opened:
        gateway = opened.gateways["dso"]
        await publish_today(gateway)
        desk = operator_desk(gateway)
        device = await register_device(gateway, desk, "m1")
        taken: list[int] = []
        refusals: dict[str, list[str]] = {"readings": [], "payments": []}
        paid: list[str] = []
        seq = 0
        start = gateway.market_now() - 40_000_000

        async def read() -> bool:
            nonlocal seq
            instants = [start + (seq + number) * 1000 for number in range(BATCH)]
            frames = [device.frame(at, seq + n, import_j=seq + n) for n, at in enumerate(instants)]
            try:
                await put(gateway, *frames)
            except SinkUnavailable as error:
                refusals["readings"].append(str(error))
                return False
            taken.extend(instants)
            seq += BATCH
            return True

        async def pay() -> bool:
            name = f"p{len(paid)}"
            args = {"account": f"actor:{desk.did}", "micro_eur": 1, "reference": name}
            try:
                await desk.send("accounts.fund", args, intent_id=name, lifetime_ms=600_000)
            except StoreUnavailable as error:
                refusals["payments"].append(str(error))
                return False
            paid.append(name)
            return True

        async def both() -> bool:
            return all([await read(), await pay()])

        for _ in range(10):
            assert await both()
        limit(1)
        ends = asyncio.get_running_loop().time() + FULL_S
        while asyncio.get_running_loop().time() < ends or not all(refusals.values()):
            await both()
            await asyncio.sleep(0.05)
        while_full = {"taken": len(taken), "refused": {kind: len(texts) for kind, texts in refusals.items()}}
        limit(resource.RLIM_INFINITY)
        await until(both, 60)
        await until(lambda: settled(gateway), 90)
        await until(lambda: anchored(gateway), 90)
        outcomes = [
            type(await gateway.outbox.wait(entry.id)).__name__ for entry in await entries(gateway, paid, desk.did)
        ]
        held = await gateway.ledger.evaluate("accounts.balance", {"account": f"actor:{desk.did}"})
        return {
            "taken": taken,
            "while_full": while_full,
            "texts": {kind: sorted(set(texts)) for kind, texts in refusals.items()},
            "paid": len(paid),
            "outcomes": sorted(set(outcomes)),
            "balance": held["micro_eur"],
            "anchors": len(await gateway.views.documents("anchor")),
        }


async def settled(gateway: Gateway) -> bool:
    """Everything is consumed, closed and anchored, and no intent is open."""
    if not gateway.windows.position == gateway.twin.position == gateway.journal.end:
        return False
    open_leaves = await gateway.store.read(
        lambda connection: connection.execute("SELECT count(*) FROM window_revision WHERE anchor IS NULL").fetchone()[0]
    )
    return not open_leaves and not await gateway.outbox.open_entries()


async def anchored(gateway: Gateway) -> bool:
    """An anchor stands on the ledger: the windows of what was taken have been closed by now."""
    return len(await gateway.views.documents("anchor")) > 0


async def entries(gateway: Gateway, names: list[str], did: str) -> list[Any]:
    return [await gateway.outbox.find(did, name) for name in names]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
