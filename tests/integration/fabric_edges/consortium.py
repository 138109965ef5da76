"""Three organisations on a native network, each with a gateway whose key is its own; an actor of agga with a device."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.ledger.harness import outcome
from integration.fabric_edges.contract import COLLECTION
from support.chain import NETWORK, Signer, wall_ms
from support.contracts import Party
from support.fabric import ORGS, describe

from flexrelay.ledger.embedded import key_identifier
from flexrelay.ledger.fabric import FabricLedger, Profile, Vigilance, load_profile
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.port import Call, Committed, LedgerError, LedgerUnavailable, Validation
from flexrelay.network import Network, Spec
from flexrelay_contracts.invocation import query_args
from flexrelay_contracts.refusal import Refused

PATIENCE_S = 150.0
GUARD_MS = 20_000
BEHIND = ("no_network", "unknown_did")
"""What another organisation's peer says that has not got the block before."""
CONTRACT = "integration.fabric_edges.contract"


def description() -> Spec:
    return describe(
        ORGS,
        guard_ms=GUARD_MS,
        contracts=[
            {
                "name": "flexrelay",
                "module": CONTRACT,
                "collections": {COLLECTION: {"orgs": ["dso", "agga"]}},
            }
        ],
    )


@dataclass
class Consortium:
    """`owner` and `device` speak through agga's gateway, `operator` through the DSO's."""

    native: Network
    operator: Party
    gateways: Mapping[str, Party]
    owner: Party
    device: Party

    @classmethod
    def on(cls, native: Network) -> Consortium:
        operator, owner = Party.new(), Party.new()
        gateways = {org: Party.new("gateway") for org in ORGS}
        made = cls(native, operator, gateways, owner, Party.new("device", owner.did))
        for org, gateway in gateways.items():
            native.gateway_profile(org, "edges", Signer(gateway).public_key)
        asyncio.run(made._found())
        return made

    def profile(self, org: str) -> Profile:
        return load_profile(self.native.folder.profile("market", f"{org}.edges"))

    @asynccontextmanager
    async def connect(
        self, org: str, profile: Profile | None = None, clock: Callable[[], int] = wall_ms
    ) -> AsyncIterator[FabricLedger]:
        """As the organisation's gateway."""
        patient = Vigilance(silent_s=5.0, answer_s=30.0)  # no peer hangs here, some are busy
        signer = Signer(self.gateways[org])
        async with FabricLedger.open(profile or self.profile(org), signer, clock, vigilance=patient) as ledger:
            yield ledger

    def intent(self, party: Party, function: str, /, **args: Any) -> bytes:
        return party.intent(function, args, deadline=wall_ms() + 600_000)

    async def _found(self) -> None:
        now = wall_ms()
        genesis = {
            "network": NETWORK,
            "simulation": False,
            "clock": {"wall_ms": now, "market_ms": now},
            "operator": self.operator.proven(),
            "organisations": sorted(ORGS),
            "gateways": [
                {**party.proven(), "org": org, "identity": key_identifier(Signer(party).public_key)}
                for org, party in self.gateways.items()
            ],
            "collections": {COLLECTION: ["agga", "dso"]},
        }
        async with self.connect("dso") as dso, self.connect("agga") as agga:
            await written(dso, self.intent(self.operator, "network.bootstrap", **genesis))
            carrier = self.gateways["agga"].did
            await written(agga, self.intent(self.owner, "identity.register", **self.owner.proven(), gateway=carrier))
            await written(agga, self.intent(self.owner, "identity.register_device", **self.device.proven()))

    @contextmanager
    def replaced(self, org: str, change: Callable[[str], str]) -> Iterator[Path]:
        """The organisation's chaincode process with a changed configuration; the log of it. Blocks."""
        name = f"flexrelay_1.{org}"
        self.native.processes.stop([name])
        place = self.native.folder.contracts
        changed = place / f"replaced.{org}.toml"
        changed.write_text(change((place / f"{name}.toml").read_text()))
        log = self.native.folder.logs / f"replaced.{org}.log"
        path = ":".join(item for item in sys.path if item)
        with log.open("wb") as file:
            process = subprocess.Popen(
                (sys.executable, "-m", "flexrelay_chaincode", "--config", str(changed)),
                env={**os.environ, "PYTHONPATH": path},
                stderr=file,
            )
        try:
            yield log
        finally:
            process.kill()
            process.wait()
            self.native.start(name)

    async def answers(self, org: str) -> None:
        """Until the organisation's chaincode answers."""
        async with self.connect_patiently(org) as ledger:
            await working(ledger)

    @asynccontextmanager
    async def connect_patiently(self, org: str) -> AsyncIterator[FabricLedger]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                context = self.connect(org)
                try:
                    ledger = await context.__aenter__()
                    break
                except LedgerUnavailable:
                    await asyncio.sleep(0.3)
        try:
            yield ledger
        finally:
            await context.__aexit__(None, None, None)


async def working(ledger: FabricLedger) -> None:
    """Until the own organisation's chaincode answers through its own peer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await asked(ledger, "network.show", {})
                return
            except LedgerUnavailable:
                await asyncio.sleep(0.2)


async def asked(ledger: FabricLedger, function: str, args: Mapping[str, Any], peer: PeerChannel | None = None) -> bytes:
    """The answer of the own organisation's peers, or of one that is named, and of no other."""
    query = query_args(function, args)
    return await ledger._gateway.evaluate("flexrelay", query, wall_ms(), own_only=peer is None, peer=peer)


async def written(
    ledger: FabricLedger, intent: bytes, transient: Mapping[str, bytes] | None = None, orgs: tuple[str, ...] = ()
) -> Committed:
    """Prepare and submit, again while the network comes up, until it stands in a block as valid."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                prepared = await ledger.prepare(Call(intent, transient or {}, orgs))
                await ledger.submit(prepared.envelope)
                break
            except LedgerError:
                await asyncio.sleep(0.3)
            except Refused as error:
                if error.code not in BEHIND:
                    raise
                await asyncio.sleep(0.1)
    committed = await outcome(ledger, prepared.tx_id, seconds=PATIENCE_S)
    assert committed.validation is Validation.VALID, committed
    return committed


def metrics(consortium: Consortium, org: str) -> dict[str, str]:
    """The chaincode process' own figures."""
    port = consortium.native.state.ports[f"flexrelay_1.{org}.health"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
