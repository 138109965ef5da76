"""Gateways: which organisation's gateway is which DID and ledger identity, and whose intents it may carry.

A controller (an actor) grants a gateway the right to carry its own intents and those of its devices. Whose word counts
for a device that cannot sign is told by the grants as they were then (`held_grant`).

key("gateway_grant", gateway, controller) is the grant as it stands, since when. Where the genesis says so
(`network.Bootstrap.entrusted_attesters`), key("gateway_grant_ended", gateway, controller, end) keeps each that ended;
those of one gateway and controller never overlap, also where clients' timestamps go back.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from flexrelay_contracts import didlog
from flexrelay_contracts.clock import Now, now
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, View, announce, key, load, need, save, scan
from flexrelay_schemas.did import Create, Did
from flexrelay_schemas.intent import Signature
from flexrelay_schemas.model import Model

OrgName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Ski = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class GatewayEntry(Model):
    """A gateway's create operation, its organisation, and its ledger identity (hex SHA-256 of its public key)."""

    operation: Create
    proof: Signature
    org: OrgName
    identity: Ski


class ByGateway(Model):
    gateway: Did


class Nothing(Model):
    """No arguments."""


class Granted(Model):
    gateway: Did
    controller: Did | Literal[""] = ""


def gateway_record(ctx: ContractContext, gateway: str) -> Record:
    """{gateway, org, identity}. Refused('gateway_unknown')."""
    return need(ctx, key("gateway", gateway), "gateway_unknown", f"{gateway} is not a registered gateway", "gateway")


def add_gateway(ctx: ContractContext, entry: GatewayEntry, at: Now, organisations: Sequence[str]) -> Record:
    """Register a gateway. Refused('kind' | 'organisation' | 'identity_used' | 'did_exists' | 'proof')."""
    if entry.operation.kind != "gateway" or entry.operation.controller:
        raise Refused("kind", "the operation does not create a gateway", "operation.kind")
    if entry.org not in organisations:
        raise Refused("organisation", f"{entry.org} is not an organisation of the network", "org")
    if load(ctx, key("gateway_identity", entry.identity)) is not None:
        raise Refused("identity_used", "the ledger identity belongs to another gateway", "identity")
    record = didlog.create(ctx, entry.operation, entry.proof, at, entry.org)
    did = record["did"]
    save(ctx, key("gateway", did), {"gateway": did, "org": entry.org, "identity": entry.identity})
    save(ctx, key("gateway_identity", entry.identity), {"gateway": did, "org": entry.org})
    names = ("did", "kind", "controller", "version", "key", "org")
    announce(ctx, "identity.registered", {name: record[name] for name in names})
    return record


def grant_gateway(ctx: ContractContext, gateway: str, controller: str) -> None:
    """Let the gateway carry the intents of the controller and its devices: its first grant."""
    _give(ctx, gateway, controller, ctx.tx_time)


def only_entrusted_attest(network: View) -> bool:
    """Whether a gateway's word for a reading counts only from gateways that were entrusted with the device
    (`evidence.included`). Networks from before there was this rule go on without it."""
    return bool(network.get("entrusted_attesters", False))


def held_grant(ctx: ContractContext, gateway: str, controller: str, wall_ms: int) -> bool:
    """Whether the gateway held the controller's grant at this wall time, on a network that keeps ended grants."""
    grant = load(ctx, key("gateway_grant", gateway, controller))
    if grant is None:
        return False
    if grant["status"] == "active" and grant["since_ms"] <= wall_ms:
        return True
    for _, ended in scan(ctx, "gateway_grant_ended", gateway, controller, first=_instant(wall_ms + 1)):
        return bool(ended["from_ms"] <= wall_ms)  # the first that ended later: all others began after it
    return False


def _register(ctx: ContractContext, caller: Caller, args: GatewayEntry) -> Result:
    caller.require_role("market_operator", "*")
    if args.operation.network != caller.network["network"]:
        raise Refused("wrong_network", f"this is network {caller.network['network']}", "operation.network")
    record = add_gateway(ctx, args, now(ctx), caller.network["organisations"])
    return {"did": record["did"]}


def _grant(ctx: ContractContext, caller: Caller, args: ByGateway) -> Result:
    _only_actors(caller)
    gateway_record(ctx, args.gateway)
    didlog.active(ctx, args.gateway, "gateway")
    since_ms = ctx.tx_time
    if only_entrusted_attest(caller.network):
        before = load(ctx, key("gateway_grant", args.gateway, caller.did))
        if before is not None:
            since_ms = before["since_ms"] if before["status"] == "active" else max(since_ms, before["since_ms"])
    _give(ctx, args.gateway, caller.did, since_ms)
    return {"gateway": args.gateway}


def _withdraw(ctx: ContractContext, caller: Caller, args: ByGateway) -> Result:
    _only_actors(caller)
    record = load(ctx, key("gateway_grant", args.gateway, caller.did))
    if record is None or record["status"] != "active":
        raise Refused("gateway_grant", "the gateway holds no grant of yours", "gateway")
    since_ms = ctx.tx_time
    if only_entrusted_attest(caller.network):
        since_ms = max(since_ms, record["since_ms"])
        if since_ms > record["since_ms"]:
            name = key("gateway_grant_ended", args.gateway, caller.did, _instant(since_ms))
            save(ctx, name, {"from_ms": record["since_ms"], "to_ms": since_ms})
    _set_grant(ctx, args.gateway, caller.did, "withdrawn", since_ms)
    announce(ctx, "gateway.withdrawn", {"gateway": args.gateway, "controller": caller.did})
    return {"gateway": args.gateway}


def _only_actors(caller: Caller) -> None:
    if caller.kind != "actor":
        raise Refused("kind", "only actors grant and withdraw the carriage of their intents", "actor")


def _give(ctx: ContractContext, gateway: str, controller: str, since_ms: int) -> None:
    _set_grant(ctx, gateway, controller, "active", since_ms)
    announce(ctx, "gateway.granted", {"gateway": gateway, "controller": controller})


def _set_grant(ctx: ContractContext, gateway: str, controller: str, status: str, since_ms: int) -> None:
    record = {"gateway": gateway, "controller": controller, "status": status, "since_ms": since_ms}
    save(ctx, key("gateway_grant", gateway, controller), record)


def _instant(wall_ms: int) -> str:
    """In key order as in time; 16 digits hold every integer that canonical JSON knows."""
    return f"{wall_ms:016d}"


def _list(ctx: ContractContext, args: Nothing) -> list[Record]:
    return [record for _, record in scan(ctx, "gateway")]


def _granted(ctx: ContractContext, args: Granted) -> list[Record]:
    if args.controller:
        record = load(ctx, key("gateway_grant", args.gateway, args.controller))
        return [] if record is None else [record]
    return [record for _, record in scan(ctx, "gateway_grant", args.gateway)]


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("gateways.register", GatewayEntry, _register, roles=("market_operator",)),
    Transaction("gateways.grant", ByGateway, _grant),
    Transaction("gateways.withdraw", ByGateway, _withdraw),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("gateways.list", Nothing, _list),
    Query("gateways.granted", Granted, _granted),
)
