"""D-prognoses: what an aggregator's portfolio at a congestion point will draw, nominated in revisions.

Delivery is measured against the revision that an order refers to. A revision that contains an order is that baseline
plus the ordered power, nothing else: so the update can be checked and cannot be used to move the baseline.
"""

from typing import Annotated, Any

from pydantic import Field

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import products
from flexrelay_contracts.market.auctions import auction_id
from flexrelay_contracts.market.terms import PROVIDERS, CongestionPoint, LocalId, SignedPowerW
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save, scan
from flexrelay_schemas.did import Did
from flexrelay_schemas.intervals import LocalDate
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.product import ProductId

Revision = Annotated[int, Field(ge=1, le=10_000)]


class Prognosis(Model):
    """`power_w`: mean power per ISP of the whole date, positive = withdrawal. `orders` are contained in it."""

    product: ProductId
    congestion_point: CongestionPoint
    date: LocalDate
    revision: Revision
    power_w: Annotated[Items[SignedPowerW], Field(max_length=1500)]
    orders: Annotated[Items[LocalId], Field(max_length=1)] = ()


class Revisions(Model):
    product: ProductId
    congestion_point: CongestionPoint
    date: LocalDate
    aggregator: Did


def power_of(ctx: ContractContext, auction: Record, aggregator: str, revision: int, field: str = "") -> list[int]:
    """The nominated watts of a baseline revision. Refused('unknown_prognosis' | 'contains_order')."""
    name = _key(auction["product"], auction["congestion_point"], auction["date"], aggregator, revision)
    message = f"there is no revision {revision} of the D-prognosis of {aggregator}"
    record = need(ctx, name, "unknown_prognosis", message, field)
    if record["orders"]:
        raise Refused("contains_order", f"revision {revision} contains an order; it is no baseline", field)
    watts: list[int] = record["power_w"]
    return watts


def _key(product: str, point: str, date: str, aggregator: str, revision: int) -> str:
    return key("prognosis", product, point, date, aggregator, f"{revision:05d}")


def _nominate(ctx: ContractContext, caller: Caller, args: Prognosis) -> Result:
    day = calendar.day(ctx, args.date)
    auction = load(ctx, key("auction", auction_id(args.product, args.congestion_point, args.date)))
    product = (
        products.current(ctx, args.product)
        if auction is None
        else products.at_version(ctx, args.product, auction["version"])
    )
    require_provider(caller, product.provider_roles, args.product)
    if len(args.power_w) != day.isps:
        raise Refused("isps", f"{args.date} has {day.isps} ISPs, the prognosis {len(args.power_w)}", "power_w")
    head_key = key("prognosis_head", args.product, args.congestion_point, args.date, caller.did)
    head = load(ctx, head_key)
    following = head["revision"] + 1 if head else 1
    if args.revision != following:
        raise Refused("revision", f"the next revision is {following}, not {args.revision}", "revision")
    if args.orders:
        _check_contains(ctx, caller, args, auction)
    else:
        closes = product.closes_at(day)
        if market_time(ctx) >= closes or (auction is not None and auction["status"] != "open"):
            raise Refused("gate_closed", f"after gate closure ({closes}) a revision contains its order", "orders")
    record = {"power_w": list(args.power_w), "orders": list(args.orders), "market_ms": market_time(ctx)}
    save(ctx, _key(args.product, args.congestion_point, args.date, caller.did, args.revision), record)
    save(ctx, head_key, {"revision": args.revision})
    announce(ctx, "congestion.prognosed", {**args.model_dump(mode="json"), "aggregator": caller.did})
    return {"revision": args.revision}


def require_provider(caller: Caller, roles: tuple[str, ...], market: str) -> None:
    """Refused('role') unless the caller holds one of the product's provider roles for this market."""
    for role in roles:
        markets = caller.roles.get(role, frozenset())
        if "*" in markets or market in markets:
            return
    raise Refused("role", f"{caller.did} does not hold the role {' or '.join(roles)} for market {market}", "actor")


def _check_contains(ctx: ContractContext, caller: Caller, args: Prognosis, auction: Record | None) -> None:
    order = load(ctx, key("order", args.orders[0]))
    if auction is None or order is None or order["auction"] != _auction_of(args) or order["aggregator"] != caller.did:
        raise Refused("unknown_order", f"{args.orders[0]} is no order of {caller.did} in this auction", "orders.0")
    wanted = list(power_of(ctx, auction, caller.did, order["prognosis_revision"]))
    for item in order["isps"]:
        wanted[item["isp"] - 1] += item["power_w"]
    for isp, (said, right) in enumerate(zip(args.power_w, wanted, strict=True), 1):
        if said != right:
            message = f"ISP {isp}: baseline and order are {right} W together, the revision says {said} W"
            raise Refused("not_contained", message, f"power_w.{isp - 1}")


def _auction_of(args: Prognosis) -> str:
    return auction_id(args.product, args.congestion_point, args.date)


def _revisions(ctx: ContractContext, args: Revisions) -> Any:
    found = scan(ctx, "prognosis", args.product, args.congestion_point, args.date, args.aggregator)
    return [{"revision": int(parts[-1]), **record} for parts, record in found]


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction("congestion.prognosis", Prognosis, _nominate, PROVIDERS),)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.prognoses", Revisions, _revisions),)
