"""What a ledger gives the conformance suite: a network with some organisations, and connections to it.

A second ledger is one subclass of `LedgerHarness`.
"""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from support.contracts import Party, sign

from flexrelay.ledger.port import Call, Checkpoint, Committed, Ledger, NotFound, Prepared, TxEvents, Validation
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import multikey

NETWORK = "test"
GUARD_MS = 60_000
MAX_ENVELOPE_BYTES = 200_000


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Gateway:
    """A gateway's key, as a signer."""

    org: str
    party: Party

    @property
    def public_key(self) -> str:
        return multikey(self.party.private.public_key())

    async def sign(self, message: bytes, /) -> bytes:
        return b64u_decode(sign(self.party.private, message))


@dataclass(frozen=True)
class Spec:
    """The network that the suite asks for. Contract `strict` needs all organisations, every other one any of them."""

    orgs: tuple[str, ...] = ("dso", "agga", "aggb")
    collections: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"dso-agga": ("agga", "dso"), "everyone": ("agga", "aggb", "dso")}
    )
    guard_ms: int = GUARD_MS
    max_envelope_bytes: int = MAX_ENVELOPE_BYTES


class Network(ABC):
    """A running network: its contract is `conformance.ledger.contract`, bootstrapped by `operator`."""

    patience_s = 150.0
    """How long a promise waits for what must come."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.operator = Party.new(network=NETWORK)
        self.gateways = {org: Gateway(org, Party.new("gateway", network=NETWORK)) for org in spec.orgs}

    @abstractmethod
    def connect(self, org: str, *, clock: Callable[[], int] = wall_ms) -> Ledger:
        """The connection of the organisation's gateway; `clock` stamps its transactions."""

    @abstractmethod
    def identity(self, org: str) -> str:
        """The gateway's identity as a contract sees it (hex SHA-256 of its public key)."""

    def intent(self, function: str, *, intent_id: str = "", deadline_ms: int = 600_000, **args: Any) -> bytes:
        """An intent signed by the operator."""
        return self.operator.intent(function, args, deadline=wall_ms() + deadline_ms, intent_id=intent_id)

    async def bootstrap(self) -> None:
        gateways = [
            {"did": g.party.did, "key": g.public_key, "org": org, "identity": self.identity(org)}
            for org, g in self.gateways.items()
        ]
        arguments = {"network": NETWORK, "operator": self.operator.proven(), "gateways": gateways}
        ledger = self.connect(self.spec.orgs[0])
        await self.commit(ledger, await ledger.prepare(Call(self.intent("network.bootstrap", **arguments))))

    async def prepare(self, ledger: Ledger, function: str, **args: Any) -> Prepared:
        return await ledger.prepare(Call(self.intent(function, **args)))

    async def commit(self, ledger: Ledger, prepared: Prepared) -> Committed:
        """Submit and wait for the outcome."""
        await ledger.submit(prepared.envelope)
        return await outcome(ledger, prepared.tx_id, seconds=self.patience_s)

    async def take(self, ledger: Ledger, checkpoint: Checkpoint, until: Callable[[TxEvents], bool]) -> list[TxEvents]:
        """Events after the checkpoint up to and with the first one that fulfils `until`."""
        found: list[TxEvents] = []
        async with asyncio.timeout(self.patience_s):
            async for item in ledger.events(checkpoint):
                found.append(item)
                if until(item):
                    break
        return found

    async def take_to(self, tx_id: str, checkpoint: Checkpoint | None = None) -> list[TxEvents]:
        """Events up to and with the transaction's first one."""
        ledger = self.connect(self.spec.orgs[0])
        return await self.take(ledger, checkpoint or Checkpoint(), lambda item: item.tx_id == tx_id)

    async def run(self, function: str, *, org: str = "", **args: Any) -> Committed:
        """Prepare, submit and wait; the transaction must be valid."""
        ledger = self.connect(org or self.spec.orgs[0])
        committed = await self.commit(ledger, await self.prepare(ledger, function, **args))
        assert committed.validation is Validation.VALID, committed
        return committed

    async def get(self, key: str) -> Any:
        return await self.connect(self.spec.orgs[0]).evaluate("probe.get", {"key": key})


class LedgerHarness(ABC):
    """Makes networks. Subclass it once per ledger."""

    @abstractmethod
    def open(self, spec: Spec) -> AbstractAsyncContextManager[Network]:
        """A fresh network with the suite's contract installed and bootstrapped."""


async def outcome(ledger: Ledger, tx_id: str, *, seconds: float) -> Committed:
    """Poll until the transaction stands in a block."""
    async with asyncio.timeout(seconds):
        while isinstance(status := await ledger.status(tx_id), NotFound):  # noqa: ASYNC110 (status is all a port has)
            await asyncio.sleep(0.005)
    assert isinstance(status, Committed)
    return status


def fresh(prefix: str = "k") -> str:
    """A key that no other promise uses."""
    return f"{prefix}-{secrets.token_hex(6)}"
