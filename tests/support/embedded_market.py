"""The tests' congestion market on the real embedded ledger: three organisations, a clock in hand."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexrelay.founding import endorsement_policies, private_collections
from flexrelay.ledger.embedded import (
    Connection,
    EmbeddedLedger,
    Genesis,
    Organisation,
    key_identifier,
)
from flexrelay.ledger.port import Call, Checkpoint, Committed, Prepared, Validation
from flexrelay_contracts.context import Creator
from flexrelay_schemas.keys import multikey
from support.chain import Signer
from support.contracts import NETWORK, Party
from support.market import MarketNetwork

ORGS = ("dso", "agg-a", "agg-b")


@dataclass
class LedgerInHand:
    """Stands where `MemoryLedger` stands in the tests' network; every call is prepared, submitted and committed."""

    runner: asyncio.Runner
    ledger: EmbeddedLedger | None = None
    connections: dict[str, Connection] = field(default_factory=dict)
    now: int = 1_700_000_000_000
    used: set[str] = field(default_factory=set)

    def prepare(
        self,
        intent: bytes,
        creator: Creator,
        transient: Mapping[str, bytes] | None = None,
        endorsing: tuple[str, ...] = (),
    ) -> Prepared:
        return self.runner.run(self.connections[creator.org].prepare(Call(intent, dict(transient or {}), endorsing)))

    def submit(self, prepared: Prepared) -> Validation:
        async def outcome() -> Validation:
            ledger = self.connections["dso"]
            await ledger.submit(prepared.envelope)
            status = await ledger.status(prepared.tx_id)
            while not isinstance(status, Committed):
                await asyncio.sleep(0.001)
                status = await ledger.status(prepared.tx_id)
            return status.validation

        return self.runner.run(outcome())

    def run(self, intent: bytes, creator: Creator, transient: Mapping[str, bytes] | None = None) -> Mapping[str, Any]:
        prepared = self.prepare(intent, creator, transient)
        assert self.submit(prepared) is Validation.VALID
        return prepared.result

    def call(self, party: Party, function: str, creator: Creator, **args: Any) -> Mapping[str, Any]:
        self.used.add(function)
        return self.run(party.intent(function, args, deadline=self.now + 60_000), creator)

    def ask(self, function: str, **args: Any) -> Any:
        return self.ask_as("dso", function, **args)

    def ask_as(self, org: str, function: str, **args: Any) -> Any:
        return self.runner.run(self.connections[org].evaluate(function, args))

    @property
    def events(self) -> list[tuple[str, bytes]]:
        async def read() -> list[tuple[str, bytes]]:
            found: list[tuple[str, bytes]] = []
            assert self.ledger is not None
            last = await self.ledger.height() - 1
            async for tx in self.connections["dso"].events(Checkpoint()):
                if tx.validation is Validation.VALID:
                    found += [(event.name, event.payload) for event in tx.events]
                if tx.block >= last and tx.last_in_block:
                    break
            return found

        return self.runner.run(read())


@contextmanager
def market_network(folder: Path, orgs: Sequence[str] = ORGS) -> Iterator[MarketNetwork]:
    """A bootstrapped network on a fresh ledger in `folder`, with the collections and policies of a founding.

    Market time is the ledger's clock, which `net.to` moves.
    """
    gateways = {org: Party.new("gateway") for org in orgs}
    creators = {org: Creator(org, key_identifier(multikey(p.private.public_key()))) for org, p in gateways.items()}
    with asyncio.Runner() as runner:
        backend = LedgerInHand(runner)
        operator = Party.new()
        net = MarketNetwork(backend, operator, gateways, creators)  # type: ignore[arg-type]
        net.home |= {operator.did: "dso", **{party.did: org for org, party in gateways.items()}}
        net.parties |= {party.did: party for party in (operator, *gateways.values())}
        collections = private_collections(orgs)
        genesis = Genesis(
            network=NETWORK,
            organisations=tuple(
                Organisation(name=org, gateways=(multikey(party.private.public_key()),))
                for org, party in gateways.items()
            ),
            policies=endorsement_policies(orgs),
            collections=collections,
        )
        opened = EmbeddedLedger.open(folder, genesis, clock=lambda: backend.now)
        backend.ledger = ledger = runner.run(opened.__aenter__())
        try:
            for org, party in gateways.items():
                backend.connections[org] = ledger.connect(org, Signer(party))
            named = {name: list(members) for name, members in collections.items()}
            net.call(operator, "network.bootstrap", **net.genesis() | {"collections": named})
            net.publish("2016-05-12", 14)
            yield net
        finally:
            runner.run(opened.__aexit__(None, None, None))
