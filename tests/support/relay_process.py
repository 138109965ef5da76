"""A gateway's writing path in a process that is made to be killed: store, outbox, relay, projections, ledger.

`python -m support.relay_process FOLDER COUNT` adds the intents pay-0 … pay-(COUNT-1), each 1 µ€ to one account, and
prints a line for each that it knows to be committed.
"""

import asyncio
import sys
from pathlib import Path

from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox
from flexrelay.projections import PROJECTIONS, Projections
from flexrelay.relay import Relay
from flexrelay.store import Store
from support.chain import Chain

ACCOUNT = "fees:kill"


async def main(chain: Chain, intents: list[tuple[str, bytes]]) -> None:
    folder = chain.folder
    async with chain.open() as ledger, Store(folder / "store.db", [OUTBOX, PROJECTIONS]) as store:
        outbox = Outbox(store, ledger.org)
        async with Relay(ledger, outbox, sign=chain.sign_void), Projections(ledger, store, ledger.org):
            print("ready", flush=True)

            async def carry(name: str, intent: bytes, key: str) -> None:
                entry = await outbox.add(intent, ordering_key=key)
                outcome = await outbox.wait(entry)
                assert isinstance(outcome, CommittedIntent), outcome
                print(f"committed {name} {outcome.tx_id}", flush=True)

            await asyncio.gather(
                *(carry(name, data, "" if n % 3 else "lane") for n, (name, data) in enumerate(intents))
            )
    print("done", flush=True)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    stored = sorted((place / "intents").iterdir())[: int(sys.argv[2])]
    asyncio.run(main(Chain.at(place), [(path.name, path.read_bytes()) for path in stored]))
