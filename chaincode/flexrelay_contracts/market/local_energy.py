"""Local energy auctions: peers behind one congestion point trade energy for a block of ISPs under the point's headroom.

A uniform double auction. The DSO opens it with the headroom that is left; peers order with escrow until the gate
closes; closing writes the status key that every order reads, so an order held back over the gate dies of a conflict.
`local_clearing` does the rest. One key per order. Energies are joules over the whole block, 0 < energy_j.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from flexrelay_contracts import calendar, masterdata
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import products
from flexrelay_contracts.market.accounts import Postings, actor_account, escrow_account
from flexrelay_contracts.market.positions import brp_of
from flexrelay_contracts.market.reservations import Reservations, Slot
from flexrelay_contracts.market.terms import AuctionId, CongestionPoint, ConnectionId, LocalId, require_operator_of
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules.settlement import value
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save, scan
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.intervals import CalendarDay, IspIndex, LocalDate
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import PowerW, PriceNanoEurPerWh, Product, ProductId

PEERS = ("prosumer", "consumer", "aggregator", "bsp", "brp")
OPERATORS = ("dso", "market_operator")


class Open(Model):
    """`headroom_w`: the power that may be traded at most, where the product caps it, else null. `grid_fee`: per Wh,
    paid by the buyer to whoever opens the auction."""

    product: ProductId
    congestion_point: CongestionPoint
    date: LocalDate
    isp_from: IspIndex
    isp_to: IspIndex
    headroom_w: PowerW | None = None
    grid_fee_nano_eur_per_wh: Annotated[int, Field(ge=0, le=10**9)] = 0


class Order(Model):
    auction: AuctionId
    order_id: LocalId
    side: Literal["buy", "sell"]
    connection: ConnectionId
    energy_j: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    price_nano_eur_per_wh: PriceNanoEurPerWh


class Named(Model):
    auction: AuctionId


class OrderNamed(Model):
    auction: AuctionId
    order_id: LocalId


def auction_id(product: str, point: str, date: str, isp_from: int, isp_to: int) -> str:
    return f"{product}.{point}.{date}.{isp_from}-{isp_to}"


def find(ctx: ContractContext, auction: str) -> Record:
    """Refused('unknown_auction')."""
    return need(ctx, key("local_auction", auction), "unknown_auction", f"there is no auction {auction}", "auction")


def set_status(ctx: ContractContext, auction: str, record: Record, status: str) -> None:
    save(ctx, key("local_auction", auction), {**record, "status": status})


def orders_of(ctx: ContractContext, auction: str) -> dict[str, Record]:
    """The standing orders by id."""
    return {order_id: record for (_, order_id), record in scan(ctx, "local_order", auction)}


def block_seconds(record: Record, day: CalendarDay) -> int:
    """Length of the auction's block."""
    return int(record["isp_to"] - record["isp_from"] + 1) * day.isp_seconds


def watts_per_isp(record: Record, day: CalendarDay, energy_j: int) -> list[int]:
    """The power of an energy over the block, for every ISP of the day, rounded up to whole watts."""
    power = -(-energy_j // block_seconds(record, day))
    return [power if record["isp_from"] <= isp <= record["isp_to"] else 0 for isp in range(1, day.isps + 1)]


def sale(connection: str) -> Slot:
    """The reservation slot of a seller's connection."""
    return connection, "feed_in"


def reservation_of(auction: str, order_id: str) -> str:
    return f"{auction}/{order_id}"


def escrow_of(side: str, energy_j: int, price: int, fee: int) -> int:
    """µ€ that an order can cost at most: a buyer's limit and fee, a seller's negative price."""
    if side == "buy":
        return _ceil(energy_j, max(price, 0)) + _ceil(energy_j, fee)
    return _ceil(energy_j, max(-price, 0))


def _ceil(energy_j: int, price: int) -> int:
    return -value(energy_j, -price).net_micro_eur


def _open(ctx: ContractContext, caller: Caller, args: Open) -> Result:
    product = products.current(ctx, args.product)
    if product.clearing != "uniform_double_auction":
        raise Refused("product", f"{args.product} is cleared as {product.clearing}, not as an auction", "product")
    if product.sealed:
        raise Refused("product", "orders of a local auction are open; this product seals them", "product")
    day = calendar.day(ctx, args.date)
    if not 1 <= args.isp_from <= args.isp_to <= day.isps:
        raise Refused("isp", f"ISPs {args.isp_from}–{args.isp_to} are not in {args.date}", "isp_to")
    if (args.isp_to - args.isp_from + 1) * day.isp_seconds != product.mtu_s:
        raise Refused("mtu", f"{args.product} trades blocks of {product.mtu_s} s", "isp_to")
    _check_operator(ctx, caller, args, product)
    closes = product.closes_at(day, args.isp_from)
    if market_time(ctx) >= closes:
        raise Refused("gate_closed", f"the gate closed at {closes}", "isp_from")
    auction = auction_id(args.product, args.congestion_point, args.date, args.isp_from, args.isp_to)
    if load(ctx, key("local_auction", auction)) is not None:
        raise Refused("auction_exists", f"auction {auction} is open already", "isp_from")
    record = {
        "product": args.product,
        "version": product.version,
        "congestion_point": args.congestion_point,
        "date": args.date,
        "isp_from": args.isp_from,
        "isp_to": args.isp_to,
        "headroom_w": args.headroom_w,
        "grid_fee_nano_eur_per_wh": args.grid_fee_nano_eur_per_wh,
        "operator": caller.did,
        "status": "open",
    }
    save(ctx, key("local_auction", auction), record)
    announce(ctx, "local_energy.opened", {"auction": auction, **record})
    return {"auction": auction, "closes_at": closes}


def _check_operator(ctx: ContractContext, caller: Caller, args: Open, product: Product) -> None:
    """The headroom of a congestion point, and a fee for its grid, are its DSO's to say."""
    if (product.volume_cap == "headroom") != (args.headroom_w is not None):
        wanted = "needs a headroom" if args.headroom_w is None else "has no volume cap"
        raise Refused("headroom", f"{args.product} {wanted}", "headroom_w")
    if args.headroom_w is not None or args.grid_fee_nano_eur_per_wh:
        caller.require_role("dso", args.product)
        require_operator_of(ctx, caller, args.congestion_point, args.date)
    elif "dso" in caller.roles:
        require_operator_of(ctx, caller, args.congestion_point, args.date)
    else:
        caller.require_role("market_operator", args.product)


def _order(ctx: ContractContext, caller: Caller, args: Order) -> Result:
    auction, product, day = _require_open(ctx, args.auction)
    _check_peer(caller, args.side, product)
    _check_terms(args, auction, product, day)
    if load(ctx, key("local_order", args.auction, args.order_id)) is not None:
        raise Refused("order_id", f"order id {args.order_id} is used in this auction", "order_id")
    _check_connection(ctx, caller, args.connection, auction)
    brp = brp_of(ctx, args.connection, auction["date"])
    if args.side == "sell":
        reservations = Reservations(ctx, day)
        watts = watts_per_isp(auction, day, args.energy_j)
        name = reservation_of(args.auction, args.order_id)
        reservations.reserve(sale(args.connection), name, watts, product=product.product, buyer="")
        reservations.commit()
    fee = auction["grid_fee_nano_eur_per_wh"]
    escrow = escrow_of(args.side, args.energy_j, args.price_nano_eur_per_wh, fee)
    postings = Postings(product.product)
    held = escrow_account(caller.did, args.auction)
    postings.transfer(actor_account(caller.did), held, escrow, "escrow", args.order_id)
    postings.commit(ctx)
    record = {
        "actor": caller.did,
        "brp": brp,
        "escrow_micro_eur": escrow,
        **args.model_dump(exclude={"auction", "order_id"}),
    }
    save(ctx, key("local_order", args.auction, args.order_id), record)
    announce(ctx, "local_energy.ordered", {"auction": args.auction, "order_id": args.order_id, **record})
    return {"auction": args.auction, "order_id": args.order_id, "escrow_micro_eur": escrow}


def _require_open(ctx: ContractContext, auction: str) -> tuple[Record, Product, CalendarDay]:
    """The auction while its gate is open, by its status and by market time."""
    record = find(ctx, auction)
    if record["status"] != "open":
        raise Refused("gate_closed", f"auction {auction} is {record['status']}", "auction")
    product = products.at_version(ctx, record["product"], record["version"])
    day = calendar.day(ctx, record["date"])
    now = market_time(ctx)
    opens, closes = product.opens_at(day, record["isp_from"]), product.closes_at(day, record["isp_from"])
    if now < opens:
        raise Refused("gate_not_open", f"the gate of {auction} opens at {opens}, it is {now}", "auction")
    if now >= closes:
        raise Refused("gate_closed", f"the gate of {auction} closed at {closes}, it is {now}", "auction")
    return record, product, day


def _check_peer(caller: Caller, side: str, product: Product) -> None:
    """Sellers are the product's providers; buyers are its buyer role, or providers that buy."""
    roles = (
        product.provider_roles
        if side == "sell"
        else tuple(dict.fromkeys((product.buyer_role, *product.provider_roles)))
    )
    for role in roles:
        markets = caller.roles.get(role, frozenset())
        if "*" in markets or product.product in markets:
            return
    raise Refused("role", f"to {side} in {product.product} takes the role {' or '.join(roles)}", "side")


def _check_terms(args: Order, auction: Record, product: Product, day: CalendarDay) -> None:
    low, high = product.min_price_nano_eur_per_wh, product.max_price_nano_eur_per_wh
    if not low <= args.price_nano_eur_per_wh <= high:
        message = f"price {args.price_nano_eur_per_wh} n€/Wh is outside {low}..{high}"
        raise Refused("price_limit", message, "price_nano_eur_per_wh")
    seconds = block_seconds(auction, day)
    if args.energy_j % (product.granularity_w * seconds):
        message = f"{args.energy_j} J is no multiple of {product.granularity_w} W over {seconds} s"
        raise Refused("granularity", message, "energy_j")
    power = args.energy_j // seconds
    if not product.min_quantity_w <= power <= product.max_quantity_w:
        message = f"{power} W is outside {product.min_quantity_w}..{product.max_quantity_w} W"
        raise Refused("quantity", message, "energy_j")


def _check_connection(ctx: ContractContext, caller: Caller, connection: str, auction: Record) -> None:
    """The connection hangs on the auction's congestion point; its owner or its mandated aggregator orders for it."""
    date = auction["date"]
    found = masterdata.at(ctx, "connection", connection, date)
    if found is None:
        raise Refused("unknown_connection", f"connection {connection} is not recorded on {date}", "connection")
    if found["congestion_point"] != auction["congestion_point"]:
        message = f"connection {connection} does not hang on {auction['congestion_point']}"
        raise Refused("congestion_point", message, "connection")
    mandate = masterdata.at(ctx, "mandate", connection, date)
    if caller.did != found["owner"] and (mandate is None or mandate["aggregator"] != caller.did):
        raise Refused("not_yours", f"{caller.did} neither owns connection {connection} nor represents it", "connection")


def _cancel(ctx: ContractContext, caller: Caller, args: OrderNamed) -> Result:
    """Take an order back before the gate: escrow and reservation are free again."""
    _, product, day = _require_open(ctx, args.auction)
    name = key("local_order", args.auction, args.order_id)
    record = need(ctx, name, "unknown_order", f"there is no order {args.order_id}", "order_id")
    if record["actor"] != caller.did:
        raise Refused("not_yours", f"order {args.order_id} is another actor's", "order_id")
    if record["side"] == "sell":
        reservations = Reservations(ctx, day)
        reservations.release(sale(record["connection"]), reservation_of(args.auction, args.order_id))
        reservations.commit()
    postings = Postings(product.product)
    held = escrow_account(caller.did, args.auction)
    postings.transfer(held, actor_account(caller.did), record["escrow_micro_eur"], "escrow_back", args.order_id)
    postings.commit(ctx)
    ctx.delete(name)
    announce(ctx, "local_energy.cancelled", {"auction": args.auction, "order_id": args.order_id})
    return {"auction": args.auction, "order_id": args.order_id}


def _close_gate(ctx: ContractContext, caller: Caller, args: Named) -> Result:
    """Anyone with a role in the market may close a gate whose time has come: it gives nobody an advantage."""
    record = find(ctx, args.auction)
    if record["status"] != "open":
        raise Refused("gate_closed", f"auction {args.auction} is {record['status']}", "auction")
    product = products.at_version(ctx, record["product"], record["version"])
    closes = product.closes_at(calendar.day(ctx, record["date"]), record["isp_from"])
    now = market_time(ctx)
    if now < closes:
        raise Refused("gate_open", f"the gate of {args.auction} closes at {closes}, it is {now}", "auction")
    set_status(ctx, args.auction, record, "closed")
    announce(ctx, "local_energy.gate_closed", {"auction": args.auction, "market_ms": now})
    return {"auction": args.auction, "status": "closed"}


def _one(ctx: ContractContext, args: Named) -> Any:
    return find(ctx, args.auction)


def _orders(ctx: ContractContext, args: Named) -> Any:
    return orders_of(ctx, args.auction)


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("local_energy.open", Open, _open, OPERATORS),
    Transaction("local_energy.order", Order, _order, PEERS),
    Transaction("local_energy.cancel", OrderNamed, _cancel, PEERS),
    Transaction("local_energy.close_gate", Named, _close_gate, (*OPERATORS, *PEERS)),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("local_energy.auction", Named, _one),
    Query("local_energy.orders", Named, _orders),
)
