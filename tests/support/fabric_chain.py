"""The tests' operator and gateway on a native Fabric network, in a folder that processes can be killed over.

The organisations share the chain; the gateway under test is the DSO's. Intents move money, so that a sum is conserved:
into accounts of their own, and in and out of a few that everybody wants.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexrelay.ledger.embedded import key_identifier
from flexrelay.ledger.fabric import FabricLedger, Limits, Vigilance
from flexrelay.ledger.port import Call, LedgerError, NotFound, Validation
from flexrelay.network import Network
from support.chain import NETWORK, Chain, Signer, wall_ms

GATEWAY = "tests"
"""The gateway's name in the organisation's certificates."""
SHORT_MS = 1_500
"""Lifetime of every seventh intent: a fault lets it expire while an envelope of it may be on its way."""
LONG_MS = 600_000


@dataclass(frozen=True)
class Payment:
    """What an intent of the load is to be. `key`: the outbox's ordering key."""

    name: str
    function: str
    args: Mapping[str, Any]
    life_ms: int
    key: str


def payment(seed: int, number: int) -> Payment:
    """Of all sorts: into an account of its own or a wanted one, out of that, refused, short-lived; always the same."""
    chance = random.Random(f"{seed} {number}")
    name = f"pay-{seed}-{number:05}"
    amount = 1_000 + number
    wanted, own = "fees:wanted", f"fees:{name}"
    match chance.randrange(16):
        case 0 | 1:
            function, args = "accounts.fund", {"account": wanted, "micro_eur": amount}
        case 2:
            function, args = "accounts.withdraw", {"account": wanted, "micro_eur": 1 + number}
        case 3:
            function, args = "accounts.withdraw", {"account": own, "micro_eur": 5}  # it is empty
        case 4:
            function, args = "accounts.compact", {"account": wanted}
        case _:
            function, args = "accounts.fund", {"account": own, "micro_eur": amount}
    life_ms = SHORT_MS if chance.random() < 0.15 else LONG_MS
    return Payment(name, function, args, life_ms, "lane" if chance.random() < 0.15 else "")


class FabricChain(Chain):
    """See the module's text. The profile is written by `enrol`."""

    @property
    def profile(self) -> Path:
        return Path((self.folder / "profile").read_text())

    def enrol(self, network: Network) -> None:
        """A certificate for the gateway's key, and the profile that names it."""
        path = network.gateway_profile("dso", GATEWAY, Signer(self.gateway).public_key)
        (self.folder / "profile").write_text(str(path))

    @asynccontextmanager
    async def connect(self, in_flight: int = 64) -> AsyncIterator[FabricLedger]:
        """`in_flight`: calls that the connection has under way at once."""
        quick = Vigilance(silent_s=1.0, answer_s=2.0, witness_s=5.0)
        limits = Limits(in_flight=in_flight)
        async with FabricLedger.open(self.profile, Signer(self.gateway), vigilance=quick, limits=limits) as ledger:
            yield ledger

    async def found(self, orgs: tuple[str, ...]) -> None:
        """The first transaction, committed."""
        now = wall_ms()
        arguments = {
            "network": NETWORK,
            "simulation": False,
            "clock": {"wall_ms": now, "market_ms": now},
            "operator": self.operator.proven(),
            "organisations": list(orgs),
            "gateways": [
                {
                    **self.gateway.proven(),
                    "org": "dso",
                    "identity": key_identifier(Signer(self.gateway).public_key),
                }
            ],
        }
        intent = self.intent("network.bootstrap", arguments, name="bootstrap")
        async with self.connect() as ledger, asyncio.timeout(150):
            while True:
                try:
                    prepared = await ledger.prepare(Call(intent))
                    await ledger.submit(prepared.envelope)
                    break
                except LedgerError:  # organisations' peers find each other a moment after the start
                    await asyncio.sleep(0.5)
            while isinstance(status := await ledger.status(prepared.tx_id), NotFound):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert status.validation is Validation.VALID, status

    def signed(self, wanted: Payment) -> bytes:
        return self.intent(wanted.function, wanted.args, life_ms=wanted.life_ms, name=wanted.name)
