"""The genesis: network name, market clock, operator, organisations, collections and the first gateways."""

import hashlib
from typing import Annotated, Any

from pydantic import Field

from flexrelay_contracts import didlog
from flexrelay_contracts.clock import Now, market_of, network_record
from flexrelay_contracts.context import MAX_UNICODE, ContractContext
from flexrelay_contracts.gateways import GatewayEntry, Nothing, OrgName, add_gateway, grant_gateway
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, save
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.did import Create
from flexrelay_schemas.intent import Signature, WallMs
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.reading import NetworkId

Rate = Annotated[int, Field(ge=1, le=1_000_000)]


class Clock(Model):
    """market = market_ms + (wall - wall_ms) × rate_num // rate_den, all in UTC milliseconds."""

    wall_ms: WallMs
    market_ms: WallMs
    rate_num: Rate = 1
    rate_den: Rate = 1


class Proven(Model):
    operation: Create
    proof: Signature


class Bootstrap(Model):
    """`tx_time_guard_ms`: how far a transaction's timestamp may be from the ledger's own clock. `entrusted_attesters`:
    a gateway's word for a reading is evidence only from gateways that were entrusted with the device.
    `point_operators`: connections are hung on a congestion point by its operators only (`masterdata`).
    """

    network: NetworkId
    simulation: bool
    clock: Clock
    operator: Proven
    organisations: Annotated[Items[OrgName], Field(min_length=1, max_length=64)]
    gateways: Annotated[Items[GatewayEntry], Field(min_length=1, max_length=256)]
    collections: dict[str, Items[OrgName]] = Field(default_factory=dict)
    tx_time_guard_ms: Annotated[int, Field(ge=1000, le=3_600_000)] = 30_000
    entrusted_attesters: bool = False
    point_operators: bool = False


class StatePage(Model):
    """`bookmark`: that of the page before, empty for the first."""

    size: Annotated[int, Field(ge=1, le=1000)] = 500
    bookmark: str = ""


def _bootstrap(ctx: ContractContext, caller: Caller, args: Bootstrap) -> Result:
    _check(args)
    operator = args.operator.operation
    record = {
        "network": args.network,
        "simulation": args.simulation,
        "clock": args.clock.model_dump(),
        "operator": caller.did,
        "organisations": sorted(args.organisations),
        "collections": {name: sorted(orgs) for name, orgs in sorted(args.collections.items())},
        "tx_time_guard_ms": args.tx_time_guard_ms,
        "created_ms": ctx.tx_time,
    }
    if args.entrusted_attesters:  # networks from before there was this rule have no such member
        record["entrusted_attesters"] = True
    if args.point_operators:  # likewise
        record["point_operators"] = True
    at = Now(ctx.tx_time, market_of(record, ctx.tx_time))
    save(ctx, key("network"), record)
    created = didlog.create(ctx, operator, args.operator.proof, at, ctx.creator.org)
    announce(ctx, "network.bootstrapped", {"network": args.network, "operator": caller.did})
    names = ("did", "kind", "controller", "version", "key", "org")
    announce(ctx, "identity.registered", {name: created[name] for name in names})
    role = {
        "subject": caller.did,
        "role": "market_operator",
        "markets": ["*"],
        "status": "active",
        "nbf": 0,
        "exp": MAX_INTEGER,
        "issuer": caller.did,
        "credential_hash": "",
        "created_ms": ctx.tx_time,
    }
    save(ctx, key("grant", caller.did, "market_operator"), role)
    for entry in args.gateways:
        gateway = add_gateway(ctx, entry, at, list(args.organisations))["did"]
        grant_gateway(ctx, gateway, caller.did)
    return {"network": args.network, "operator": caller.did}


def _check(args: Bootstrap) -> None:
    """Refused('kind' | 'clock' | 'organisation' | 'duplicate' | 'wrong_network')."""
    if args.operator.operation.kind != "actor" or args.operator.operation.controller:
        raise Refused("kind", "the operator is an actor without a controller", "operator.operation")
    if not args.simulation and (
        args.clock.rate_num != args.clock.rate_den or args.clock.wall_ms != args.clock.market_ms
    ):
        raise Refused("clock", "market time differs from wall time only on a network flagged as simulation", "clock")
    for what, values in (
        ("organisations", list(args.organisations)),
        ("gateways.operation", [entry.operation.did() for entry in args.gateways]),
        ("gateways.identity", [entry.identity for entry in args.gateways]),
    ):
        if len(set(values)) != len(values):
            raise Refused("duplicate", "a value stands twice", what)
    for index, entry in enumerate(args.gateways):
        if entry.operation.network != args.network:
            raise Refused("wrong_network", "the gateway belongs to another network", f"gateways.{index}")
    for name, orgs in sorted(args.collections.items()):
        for org in orgs:
            if org not in args.organisations:
                raise Refused("organisation", f"{org} is not an organisation of the network", f"collections.{name}")


def _show(ctx: ContractContext, args: Nothing) -> Record:
    return network_record(ctx)


def _state_page(ctx: ContractContext, args: StatePage) -> dict[str, Any]:
    """{items: [[key, hex SHA-256 of its value]] in key order, bookmark: empty on the last page}: the whole public
    state, to be compared with what the blocks give."""
    page = ctx.range_page("", MAX_UNICODE, args.size, args.bookmark)
    items = [[name, hashlib.sha256(value).hexdigest()] for name, value in page.items]
    return {"items": items, "bookmark": page.bookmark}


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction("network.bootstrap", Bootstrap, _bootstrap),)
QUERIES: tuple[Query[Any], ...] = (
    Query("network.show", Nothing, _show),
    Query("network.state_page", StatePage, _state_page),
)
