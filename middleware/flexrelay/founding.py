"""Founding a network: gateways' and operator's identities, the embedded ledger's genesis, the first transaction.

Everything can be asked for again: what exists is used as it is, so a founding that was interrupted goes on.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flexrelay.identity import Identity, Wallet, sign_intent
from flexrelay.ledger.embedded import EndorsementPolicy, Genesis, Organisation
from flexrelay.ledger.port import (
    Call,
    Committed,
    Ledger,
    LedgerError,
    LedgerHost,
    NotFound,
    OutcomeUnknown,
    Validation,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_sdk.clock import wall_ms

GATEWAY = "gateway"
OPERATOR = "operator"
_BOOTSTRAP_ID = "network-bootstrap"
_PATIENCE_S = 30.0
_BILATERAL = ("congestion", "settlement", "dispute")
"""Contracts with data that is private between two organisations."""


@dataclass(frozen=True, slots=True)
class MarketClock:
    """market = market_ms + (wall - wall_ms) × rate_num // rate_den. Without arguments market time is wall time."""

    wall_ms: int = 0
    market_ms: int = 0
    rate_num: int = 1
    rate_den: int = 1

    @property
    def simulated(self) -> bool:
        return (self.wall_ms, self.rate_num) != (self.market_ms, self.rate_den)

    def market(self, wall_ms: int) -> int:
        """The market instant (UTC ms) at a wall-clock instant."""
        return self.market_ms + (wall_ms - self.wall_ms) * self.rate_num // self.rate_den

    def wall(self, market_ms: int) -> int:
        """The first wall-clock instant at which the market clock shows `market_ms` or more."""
        return self.wall_ms + -((self.market_ms - market_ms) * self.rate_den // self.rate_num)

    def to_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("wall_ms", "market_ms", "rate_num", "rate_den")}


def wallet_of(folder: Path, org: str, passphrase: SecretStr) -> Wallet:
    """The wallet of an organisation's gateway in a data folder."""
    return Wallet(folder / org / "keys", passphrase)


def identity_in(wallet: Wallet, network: str, kind: Any, label: str, controller: str = "") -> Identity:
    """The wallet's identity with this label, made when it is not there."""
    return wallet.find(label) or wallet.create(network, kind, label=label, controller=controller)


def private_collections(orgs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A private collection for each pair of organisations, one for each by itself (whose actors trade with each other),
    and one of all when there are more than two.

    The names are good on Fabric too; as no organisation's name holds an underscore, none of them can be another's.
    """
    pairs = {"_".join(pair): pair for pair in combinations(sorted(orgs), 2)}
    own = {f"{org}_on_its_own": (org,) for org in sorted(orgs)}
    return pairs | own | ({"all_of_them": tuple(sorted(orgs))} if len(orgs) > 2 else {})


def endorsement_policies(orgs: Sequence[str]) -> dict[str, EndorsementPolicy]:
    """None up to three organisations: the majority, two, endorses everything. In a larger network two are no majority,
    and contracts that read what is private between two organisations can have no third one execute them."""
    if len(orgs) <= 3:
        return {}
    return {name: EndorsementPolicy(orgs=tuple(orgs), required=2) for name in _BILATERAL}


def genesis(network: str, wallets: Mapping[str, Wallet]) -> Genesis:
    """The genesis of a network of these organisations, one gateway each."""
    return Genesis(
        network=network,
        organisations=tuple(
            Organisation(name=org, gateways=(identity_in(wallet, network, "gateway", GATEWAY).operation.key,))
            for org, wallet in sorted(wallets.items())
        ),
        policies=endorsement_policies(sorted(wallets)),
        collections=dict(private_collections(list(wallets))),
    )


async def found(
    ledger: LedgerHost,
    network: str,
    wallets: Mapping[str, Wallet],
    clock: MarketClock,
    operator_org: str,
    organisations: Sequence[str] = (),
) -> str:
    """Write the network's genesis record and return the operator's DID. Does nothing on a network that has one.

    `organisations`: all of the network, where `wallets` are not those of all; the others' gateways register later.
    """
    members = sorted(organisations or wallets)
    gateway = wallets[operator_org].signer(identity_in(wallets[operator_org], network, "gateway", GATEWAY).did)
    connection = await ledger.connect(operator_org, gateway)
    try:
        known: dict[str, Any] = await connection.evaluate("network.show", {})
        return str(known["operator"])
    except Refused as refused:
        if refused.code != "no_network":
            raise
    operator = identity_in(wallets[operator_org], network, "actor", OPERATOR)
    entries = []
    for org, wallet in sorted(wallets.items()):
        identity = identity_in(wallet, network, "gateway", GATEWAY)
        proven = await wallet.proven(identity.did)
        as_seen = await ledger.identity(org, wallet.signer(identity.did))
        entries.append({**proven, "org": org, "identity": as_seen})
    args = {
        "network": network,
        "simulation": clock.simulated,
        "clock": clock.to_json(),
        "operator": await wallets[operator_org].proven(operator.did),
        "organisations": members,
        "gateways": entries,
        "collections": {name: list(orgs) for name, orgs in sorted(private_collections(members).items())},
        "entrusted_attesters": True,
        "point_operators": True,
    }
    signer = wallets[operator_org].signer(operator.did)
    intent = await sign_intent(signer, network, "network.bootstrap", args, wall_ms() + 60_000, _BOOTSTRAP_ID)
    await _commit(connection, intent)
    return operator.did


async def _commit(ledger: Ledger, intent: bytes) -> None:
    """Carry the very first intent: there is no gateway yet that could relay it."""
    prepared = await ledger.prepare(Call(intent))
    try:
        await ledger.submit(prepared.envelope)
    except OutcomeUnknown:
        pass  # asked below
    for _ in range(int(_PATIENCE_S / 0.02)):
        status = await ledger.status(prepared.tx_id)
        match status:
            case Committed(validation=Validation.VALID):
                return
            case Committed(validation=validation):
                raise LedgerError(f"the network's first transaction was judged {validation.value}", prepared.tx_id)
            case NotFound():
                await asyncio.sleep(0.02)
    raise OutcomeUnknown("the network's first transaction did not show up in time; found it again", prepared.tx_id)
