"""An auction's status key: every offer reads it, closing the gate writes it.

So an offer that was endorsed before the gate and held back over it dies of a version conflict at commit.
"""

from typing import Any, Final, Literal

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import products
from flexrelay_contracts.market.terms import AuctionId
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import Product

Status = Literal["open", "closed", "cleared"]

OPENING_MS: Final = 3_600_000
"""Market time after the closing of the gate in which a clearing waits for sealed offers to be opened."""


class Named(Model):
    auction: AuctionId


def auction_id(product: str, congestion_point: str, date: str) -> str:
    return f"{product}.{congestion_point}.{date}"


def open_auction(ctx: ContractContext, auction: str, record: Record) -> None:
    """Write the status key of a new auction. Refused('auction_exists')."""
    if load(ctx, key("auction", auction)) is not None:
        raise Refused("auction_exists", f"auction {auction} is open already")
    save(ctx, key("auction", auction), {**record, "status": "open"})


def find(ctx: ContractContext, auction: str) -> Record:
    """Refused('unknown_auction')."""
    return need(ctx, key("auction", auction), "unknown_auction", f"there is no auction {auction}", "auction")


def set_status(ctx: ContractContext, auction: str, record: Record, status: Status) -> None:
    save(ctx, key("auction", auction), {**record, "status": status})


def product_of(ctx: ContractContext, record: Record) -> Product:
    """The product version under which the auction was opened."""
    return products.at_version(ctx, record["product"], record["version"])


def require_open(ctx: ContractContext, auction: str) -> tuple[Record, Product]:
    """The auction while its gate is open, by its status and by market time.

    Refused('gate_closed' | 'gate_not_open').
    """
    record = find(ctx, auction)
    if record["status"] != "open":
        raise Refused("gate_closed", f"auction {auction} is {record['status']}", "auction")
    product = product_of(ctx, record)
    day = calendar.day(ctx, record["date"])
    now = market_time(ctx)
    if now < product.opens_at(day):
        raise Refused(
            "gate_not_open", f"the gate of {auction} opens at {product.opens_at(day)}, it is {now}", "auction"
        )
    if now >= product.closes_at(day):
        raise Refused(
            "gate_closed", f"the gate of {auction} closed at {product.closes_at(day)}, it is {now}", "auction"
        )
    return record, product


def lapses_at(product: Product, day: CalendarDay, first_isp: int) -> int:
    """UTC ms in market time from which an order could no longer be activated: nothing is cleared after it."""
    return day.bounds(first_isp)[0] - product.full_activation_time_s * 1000


def opening_ends_at(auction: Record, lapses: int) -> int:
    """UTC ms in market time until which a closed auction waits for sealed offers; it leaves half of the time that there
    is before the auction lapses to the clearing."""
    closed: int = auction["closed_ms"]
    return closed + min(OPENING_MS, max(lapses - closed, 0) // 2)


def _close_gate(ctx: ContractContext, caller: Caller, args: Named) -> Result:
    """Anyone with a role in the market may close a gate whose time has come: it gives nobody an advantage."""
    record = find(ctx, args.auction)
    product = product_of(ctx, record)
    if record["status"] != "open":
        raise Refused("gate_closed", f"auction {args.auction} is {record['status']}", "auction")
    closes = product.closes_at(calendar.day(ctx, record["date"]))
    now = market_time(ctx)
    if now < closes:
        raise Refused("gate_open", f"the gate of {args.auction} closes at {closes}, it is {now}", "auction")
    set_status(ctx, args.auction, {**record, "closed_ms": now}, "closed")
    announce(ctx, "congestion.gate_closed", {"auction": args.auction, "market_ms": now})
    return {"auction": args.auction, "status": "closed"}


def _one(ctx: ContractContext, args: Named) -> Any:
    return find(ctx, args.auction)


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("congestion.close_gate", Named, _close_gate, ("dso", "tso", "market_operator", "aggregator", "bsp")),
)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.auction", Named, _one),)
