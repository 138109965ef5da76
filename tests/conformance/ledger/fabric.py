"""Hyperledger Fabric under the conformance suite: one native network for all promises.

Every promise has fresh keys, so they do not disturb each other. A promise that asks for the ledger's beginning gets
the place where it itself began: a transaction that was committed for it alone, as the bootstrap is elsewhere.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from conformance.ledger.harness import LedgerHarness, Network, Spec, fresh, outcome, wall_ms
from support.guardian import guarded

from flexrelay import network as native
from flexrelay.ledger.fabric import FabricLedger, IdentityFiles, Profile, load_profile
from flexrelay.ledger.port import (
    Call,
    Checkpoint,
    Committed,
    Ledger,
    LedgerUnavailable,
    Prepared,
    TxEvents,
    TxStatus,
)
from flexrelay_contracts.refusal import Refused

CHANNEL = "conformance"
CONTRACT = "conformance.ledger.contract"


def description(spec: Spec, fabric: str, consensus: str, orderers: int) -> native.Spec:
    """The network that the suite's specification asks for."""
    orgs = list(spec.orgs)
    return native.parse(
        {
            "name": "conformance",
            "fabric": fabric,
            "consensus": consensus,
            "orderers": orderers,
            "guard_ms": spec.guard_ms,
            "organisations": [{"name": org} for org in orgs],
            "channels": [
                {
                    "name": CHANNEL,
                    "block": {
                        "timeout_ms": 50,
                        "preferred_bytes": spec.max_envelope_bytes,
                        "absolute_bytes": spec.max_envelope_bytes,
                    },
                }
            ],
            "contracts": [
                {
                    "name": "flexrelay",
                    "module": CONTRACT,
                    "policy": {"orgs": orgs, "required": 1},
                    "collections": {
                        **{name: {"orgs": list(members)} for name, members in spec.collections.items()},
                        "brief": {"orgs": orgs, "block_to_live": 3},
                    },
                    "entries": {"strict": "strict"},
                },
                {
                    "name": "strict",
                    "module": CONTRACT,
                    "policy": {"orgs": orgs, "required": len(orgs)},
                    "forward_to": "flexrelay",
                },
            ],
        },
        "conformance",
    )


class FabricNetwork(Network):
    """Connections to the native network for one promise."""

    ledgers: dict[str, FabricLedger]
    began: Checkpoint

    def __init__(self, spec: Spec, profiles: Mapping[str, Profile]) -> None:
        super().__init__(spec)
        self.profiles = profiles

    def connect(self, org: str, *, clock: Callable[[], int] = wall_ms) -> Ledger:
        return FromHere(self.ledgers[org].with_clock(clock), self.began)

    def identity(self, org: str) -> str:
        return self.ledgers[org].identity

    async def commit(self, ledger: Ledger, prepared: Prepared) -> Committed:
        """Submit, and wait until every organisation's peer has the block."""
        await ledger.submit(prepared.envelope)
        async with asyncio.timeout(self.patience_s):
            for each in self.ledgers.values():
                while each.known(prepared.tx_id) is None:  # noqa: ASYNC110 (the connection follows the blocks)
                    await asyncio.sleep(0.002)
        return await outcome(ledger, prepared.tx_id, seconds=self.patience_s)

    async def begin(self) -> None:
        """Commit a transaction that stands alone in its block."""
        self.began = Checkpoint()
        while True:
            committed = await self.run("probe.put", key=fresh("begin"), value="v")
            items = await self.take(self.ledgers["dso"], Checkpoint(committed.block), lambda item: item.last_in_block)
            if len(items) == 1:
                self.began = Checkpoint(committed.block)
                return


class FromHere:
    """A ledger whose beginning is a given block."""

    def __init__(self, ledger: FabricLedger, began: Checkpoint) -> None:
        self._ledger = ledger
        self._began = began

    @property
    def org(self) -> str:
        return self._ledger.org

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return await self._ledger.evaluate(function, args)

    async def prepare(self, call: Call) -> Prepared:
        return await self._ledger.prepare(call)

    async def submit(self, envelope: bytes) -> None:
        await self._ledger.submit(envelope)

    async def status(self, tx_id: str) -> TxStatus:
        return await self._ledger.status(tx_id)

    def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        return self._ledger.events(self._began if checkpoint == Checkpoint() else checkpoint)


class FabricHarness(LedgerHarness):
    """Brings the native network up at the first promise; `stop` ends it."""

    def __init__(self, fabric: str = "3.1", consensus: str = "raft", orderers: int = 1) -> None:
        self._options = (fabric, consensus, orderers)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._native: native.Network | None = None
        self._first: FabricNetwork | None = None
        self._guard = ExitStack()
        self._failure: native.NetworkError | None = None

    @asynccontextmanager
    async def open(self, spec: Spec) -> AsyncIterator[Network]:
        if self._failure is not None:
            raise self._failure  # every promise would wait for the same network again
        if self._first is None:
            try:
                self._first = await asyncio.to_thread(self._start, spec)
            except native.NetworkError as error:
                self._failure = error
                raise
        network = FabricNetwork(spec, self._first.profiles)
        network.operator, network.gateways = self._first.operator, self._first.gateways
        async with AsyncExitStack() as stack:
            network.ledgers = {
                org: await stack.enter_async_context(FabricLedger.open(profile, network.gateways[org]))
                for org, profile in network.profiles.items()
            }
            if network is not self._first and not hasattr(self._first, "began"):
                network.began = self._first.began = Checkpoint()
                await settled(network)
                await network.bootstrap()
            await network.begin()
            yield network

    def _start(self, spec: Spec) -> FabricNetwork:
        fabric, consensus, orderers = self._options
        self._folder = tempfile.TemporaryDirectory(prefix="conformance-")
        folder = Path(self._folder.name)
        self._native = native.Network(
            description(spec, fabric, consensus, orderers), folder / "network", native.ensure(fabric)
        )
        self._guard.enter_context(guarded(folder / "network"))
        self._native.up()
        first = FabricNetwork(spec, {})
        profiles = {}
        for org, gateway in first.gateways.items():
            certificate = folder / f"{org}.pem"
            certificate.write_bytes(self._native.enrol(org, "conformance", gateway.public_key))
            profile = load_profile(self._native.profile(org, CHANNEL))
            changes = {"identity": IdentityFiles(certificate=str(certificate)), "peers": profile.own_peers}
            profiles[org] = profile.model_copy(update=changes)
        first.profiles = profiles
        return first

    @property
    def native(self) -> native.Network:
        """The running network; there is one once a promise was opened."""
        assert self._native is not None
        return self._native

    def stop(self) -> None:
        if self._native is not None:
            self._native.down(purge=True)
            self._guard.close()
        if self._folder is not None:
            self._folder.cleanup()


async def settled(network: FabricNetwork) -> None:
    """Until every peer finds the other organisations' (gossip needs a moment after the start)."""
    async with asyncio.timeout(network.patience_s):
        for ledger in network.ledgers.values():
            call = Call(b"no intent", endorsing_orgs=network.spec.orgs)
            while True:
                try:
                    await ledger.prepare(call)
                except Refused:
                    break
                except LedgerUnavailable:
                    await asyncio.sleep(0.1)
