"""The DSO's request, which opens an auction: when it needs power shifted, and when there is room for the rebound."""

from typing import Annotated, Any, Literal

from pydantic import Field

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import products
from flexrelay_contracts.market.auctions import Named, auction_id, open_auction
from flexrelay_contracts.market.awards import promise_award
from flexrelay_contracts.market.reservations import Direction
from flexrelay_contracts.market.terms import (
    BUYERS,
    MAX_ISPS,
    CongestionPoint,
    SignedPowerW,
    require_operator_of,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import announce, key, need, save
from flexrelay_schemas.intervals import IspIndex, LocalDate
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.product import ProductId


class RequestedIsp(Model):
    """Change of power relative to the prognoses, [min_w, max_w], positive = more withdrawal.

    requested: the need is the end of the range that is farther from zero, the other end the least that helps.
    available: the room for rebound; zero lies within.
    """

    isp: IspIndex
    disposition: Literal["requested", "available"]
    min_w: SignedPowerW
    max_w: SignedPowerW


class Request(Model):
    product: ProductId
    congestion_point: CongestionPoint
    date: LocalDate
    direction: Direction
    isps: Annotated[Items[RequestedIsp], Field(min_length=1, max_length=MAX_ISPS)]


def _request(ctx: ContractContext, caller: Caller, args: Request) -> Result:
    product = products.current(ctx, args.product)
    caller.require_role(product.buyer_role, args.product)
    if product.clearing != "pay_as_bid":
        raise Refused("product", f"{args.product} is cleared as {product.clearing}, not on request", "product")
    day = calendar.day(ctx, args.date)
    if market_time(ctx) >= product.closes_at(day):
        raise Refused("gate_closed", f"the gate for {args.date} closed at {product.closes_at(day)}", "date")
    require_operator_of(ctx, caller, args.congestion_point, args.date)
    _check_isps(args, day.isps)
    auction = auction_id(args.product, args.congestion_point, args.date)
    record = {
        "product": args.product,
        "version": product.version,
        "congestion_point": args.congestion_point,
        "date": args.date,
        "buyer": caller.did,
        "buyer_org": caller.org,
        "direction": args.direction,
    }
    open_auction(ctx, auction, record)
    promise_award(ctx, auction, caller)
    isps = [item.model_dump() for item in args.isps]
    save(ctx, key("request", auction), {"isps": isps})
    announce(ctx, "congestion.requested", {"auction": auction, **record, "isps": isps})
    return {"auction": auction}


def _check_isps(args: Request, isps: int) -> None:
    last = 0
    for index, item in enumerate(args.isps):
        where = f"isps.{index}"
        if not last < item.isp <= isps:
            raise Refused("isp", f"ISPs rise and lie in 1..{isps}; {item.isp} does not", f"{where}.isp")
        last = item.isp
        if item.min_w > item.max_w:
            raise Refused("power", f"min_w {item.min_w} is above max_w {item.max_w}", f"{where}.max_w")
        if item.disposition == "available":
            if not item.min_w <= 0 <= item.max_w:
                raise Refused("power", "the room of an available ISP contains zero", f"{where}.min_w")
        elif args.direction == "withdrawal" and not 0 <= item.min_w < item.max_w:
            raise Refused("direction", "more withdrawal is requested: 0 <= min_w < max_w", f"{where}.min_w")
        elif args.direction == "feed_in" and not item.min_w < item.max_w <= 0:
            raise Refused("direction", "more feed-in is requested: min_w < max_w <= 0", f"{where}.max_w")
    if all(item.disposition == "available" for item in args.isps):
        raise Refused("no_need", "at least one ISP is requested", "isps")


def load_request(ctx: ContractContext, auction: str) -> list[RequestedIsp]:
    """The request's ISP list. Refused('unknown_auction')."""
    record = need(ctx, key("request", auction), "unknown_auction", f"there is no auction {auction}", "auction")
    return [RequestedIsp.model_validate(item) for item in record["isps"]]


def _one(ctx: ContractContext, args: Named) -> Any:
    return [item.model_dump() for item in load_request(ctx, args.auction)]


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction("congestion.request", Request, _request, BUYERS),)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.requested_isps", Named, _one),)
