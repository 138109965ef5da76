"""The embedded ledger under the conformance suite."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from conformance.ledger.contract import QUERIES, TRANSACTIONS
from conformance.ledger.harness import NETWORK, LedgerHarness, Network, Spec, wall_ms

from flexrelay.ledger.embedded import (
    BlockCutting,
    EmbeddedLedger,
    EndorsementPolicy,
    Genesis,
    Organisation,
    key_identifier,
)
from flexrelay.ledger.port import Ledger


class EmbeddedNetwork(Network):
    """A network on one embedded ledger in `folder`."""

    ledger: EmbeddedLedger

    def __init__(self, spec: Spec, folder: Path) -> None:
        super().__init__(spec)
        self.folder = folder
        self.make_genesis()

    def make_genesis(self) -> None:
        """The genesis document that names the gateways' present keys."""
        spec = self.spec
        self.genesis = Genesis(
            network=NETWORK,
            organisations=tuple(
                Organisation(name=org, gateways=(gateway.public_key,)) for org, gateway in self.gateways.items()
            ),
            policies={
                "probe": EndorsementPolicy(orgs=spec.orgs, required=1),
                "network": EndorsementPolicy(orgs=spec.orgs, required=1),
                "strict": EndorsementPolicy(orgs=spec.orgs, required=len(spec.orgs)),
            },
            collections=dict(spec.collections),
            block_cutting=BlockCutting(max_envelope_bytes=spec.max_envelope_bytes),
            tx_time_guard_ms=spec.guard_ms,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["EmbeddedNetwork"]:
        """Open the folder; may be done again after it was closed."""
        opening = EmbeddedLedger.open(self.folder, self.genesis, transactions=TRANSACTIONS, queries=QUERIES)
        async with opening as self.ledger:
            yield self

    def connect(self, org: str, *, clock: Callable[[], int] = wall_ms) -> Ledger:
        return self.ledger.connect(org, self.gateways[org], clock=clock)

    def identity(self, org: str) -> str:
        return key_identifier(self.gateways[org].public_key)


class EmbeddedHarness(LedgerHarness):
    """Each network in a temporary folder of its own."""

    @asynccontextmanager
    async def open(self, spec: Spec) -> AsyncIterator[Network]:
        with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
            network = EmbeddedNetwork(spec, Path(folder))
            async with network.running():
                await network.bootstrap()
                yield network


async def held(ledger: EmbeddedLedger, count: int) -> None:
    """Until so many envelopes wait for a block. Stands where the ledger waits for it to be full: on a busy machine a
    block's time would pass between two of them."""
    while len(ledger._waiting) < count and not ledger._closing:
        ledger._arrived.clear()
        await ledger._arrived.wait()
