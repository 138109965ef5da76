"""How long nothing is committed after the leader of the orderers was killed, under load, and that nothing is lost.

The load is our client with the plain put. As the relay does, it keeps each signed envelope and gives in the same one
again until its outcome is known.
"""

import asyncio
import re
import time
import urllib.request
from itertools import pairwise
from typing import Any, Final

from flexrelay.bench import Result
from flexrelay.bench.fabric.ground import CHANNEL, ORG, OURS, description, network
from flexrelay.bench.fabric.load import Outcomes
from flexrelay.ledger.fabric import FabricLedger
from flexrelay.ledger.port import Call, LedgerError, Validation
from flexrelay.network import Network

IN_FLIGHT: Final = 16
BEFORE_S: Final = 4.0
AFTER_S: Final = 12.0
_ASK_S: Final = 1.0
_LEADER: Final = re.compile(r"^consensus_(?:etcdraft_is_leader|smartbft_is_leader|BFT_is_leader)\{.*\} 1$", re.M)


def run() -> list[Result]:
    """fabric_raft_leader_pause and fabric_bft_leader_pause: seconds; none of the transactions may be missing."""
    return [_pause("raft", 3), _pause("bft", 4)]


def _pause(consensus: str, orderers: int) -> Result:
    contracts: list[dict[str, Any]] = [{"name": OURS, "module": "flexrelay.bench.fabric.plain"}]
    spec = description(contracts, consensus=consensus, orderers=orderers)
    with network(spec) as ground:
        ground.start(f"{OURS}.{ORG}")
        seconds, count, again = asyncio.run(_measure(ground, consensus))
    text = f"{count} transactions, all valid in the end; {again} envelopes were given in again"
    return {"name": f"fabric_{consensus}_leader_pause", "value": seconds, "unit": "s", "ratio": 0.0, "against": text}


async def _measure(ground: Network, consensus: str) -> tuple[float, int, int]:
    commits: list[float] = []
    again = 0
    stop = False
    async with FabricLedger.open(ground.profile(ORG, CHANNEL)) as ledger:
        outcomes = Outcomes()
        following = asyncio.create_task(outcomes.follow(ledger, await ledger.height()))

        async def carry(worker: int) -> None:
            nonlocal again
            number = 0
            while not stop:
                number += 1
                intent = b"%d-%06d\0%s" % (worker, number, b"v" * 200)
                prepared = await ledger.prepare(Call(intent))
                outcome = asyncio.ensure_future(outcomes.of(prepared.tx_id))
                sent = 0
                while not outcome.done():
                    sent += 1
                    try:
                        await ledger.submit(prepared.envelope)
                    except LedgerError:
                        pass  # unknown or refused for now: the outcome is asked for, then the same envelope goes again
                    await asyncio.wait([outcome], timeout=_ASK_S)
                again += sent - 1
                if outcome.result().validation is not Validation.VALID:
                    raise RuntimeError(f"a put was judged {outcome.result().validation.value}")
                commits.append(time.monotonic())

        async def disturb() -> None:
            nonlocal stop
            await asyncio.sleep(BEFORE_S)
            leader = await asyncio.to_thread(leader_of, ground, consensus)
            await asyncio.to_thread(ground.kill, leader)
            await asyncio.sleep(AFTER_S)
            stop = True

        async with asyncio.TaskGroup() as group:
            group.create_task(disturb())
            for worker in range(IN_FLIGHT):
                group.create_task(carry(worker))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return max(after - before for before, after in pairwise(sorted(commits))), len(commits), again


def leader_of(ground: Network, consensus: str) -> str:
    """The orderer that leads the channel."""
    for process in ground.status():
        if process.kind == "orderer" and process.operations:
            with urllib.request.urlopen(f"http://{process.operations}/metrics", timeout=5) as answer:
                if _LEADER.search(answer.read().decode()):
                    return process.name
    raise RuntimeError(f"no orderer says that it leads ({consensus})")
