"""Clearing and settlement of a local energy auction.

Clearing fixes volume, price and fills, gives back the sellers' unused reservations and corrects the positions of the
BRPs: a trade is firm, and what is not delivered is an imbalance. Settlement pays volume × price out of the escrows;
every line is exact, then floored once, and what is left of whole µ€ goes to the rounding account. Cleared per ISP, so
that a block's energy is the same in each of its ISPs.
"""

from typing import Any

from flexrelay_contracts import calendar
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import local_energy, positions, products
from flexrelay_contracts.market.accounts import ROUNDING, Postings, actor_account, escrow_account, fees_account
from flexrelay_contracts.market.local_energy import OPERATORS, Named
from flexrelay_contracts.market.reservations import Reservations
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules import uniform_auction
from flexrelay_contracts.rules.orders import Order
from flexrelay_contracts.rules.settlement import value
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, need, save
from flexrelay_schemas.intervals import CalendarDay


def _clear(ctx: ContractContext, caller: Caller, args: Named) -> Result:
    auction = _operated(ctx, caller, args.auction, "closed")
    product = products.at_version(ctx, auction["product"], auction["version"])
    day = calendar.day(ctx, auction["date"])
    orders = local_energy.orders_of(ctx, args.auction)
    isps = auction["isp_to"] - auction["isp_from"] + 1
    cap = None if auction["headroom_w"] is None else auction["headroom_w"] * day.isp_seconds
    result = uniform_auction.clear(
        args.auction,
        _side(orders, "sell", isps),
        _side(orders, "buy", isps),
        cap=cap,
        limits=(product.min_price_nano_eur_per_wh, product.max_price_nano_eur_per_wh),
    )
    fills = {fill.id: fill.quantity * isps for fill in (*result.sold, *result.bought)}
    _release(ctx, day, args.auction, auction, orders, fills)
    _correct(ctx, args.auction, auction, orders, fills)
    record = {
        "volume_j": result.volume * isps,
        "price_nano_eur_per_wh": result.price,
        "price_range": None if result.price_range is None else list(result.price_range),
        "cap_j": None if cap is None else cap * isps,
        "fills": fills,
    }
    save(ctx, key("local_clearing", args.auction), record)
    local_energy.set_status(ctx, args.auction, auction, "cleared")
    announce(ctx, "local_energy.cleared", {"auction": args.auction, **record})
    return {"auction": args.auction, **record}


def _operated(ctx: ContractContext, caller: Caller, auction: str, status: str) -> Record:
    """The auction in this status, if the caller opened it or runs the market."""
    record = local_energy.find(ctx, auction)
    if caller.did != record["operator"]:
        caller.require_role("market_operator", record["product"])
    if record["status"] != status:
        raise Refused("auction_status", f"auction {auction} is {record['status']}, not {status}", "auction")
    return record


def _side(orders: dict[str, Record], side: str, isps: int) -> list[Order]:
    """Joules per ISP; an order's energy is a multiple of the block's length."""
    return [
        Order(order_id, order["energy_j"] // isps, order["price_nano_eur_per_wh"])
        for order_id, order in sorted(orders.items())
        if order["side"] == side
    ]


def _release(
    ctx: ContractContext,
    day: CalendarDay,
    auction_id: str,
    auction: Record,
    orders: dict[str, Record],
    fills: dict[str, int],
) -> None:
    """Sold power stays reserved, the rest is free again."""
    reservations = Reservations(ctx, day)
    for order_id, order in sorted(orders.items()):
        if order["side"] == "sell":
            keep = local_energy.watts_per_isp(auction, day, fills.get(order_id, 0))
            name = local_energy.reservation_of(auction_id, order_id)
            reservations.release(local_energy.sale(order["connection"]), name, keep)
    reservations.commit()


def _correct(
    ctx: ContractContext, auction_id: str, auction: Record, orders: dict[str, Record], fills: dict[str, int]
) -> None:
    """A buyer's BRP plans more withdrawal, a seller's BRP less."""
    isps = range(auction["isp_from"], auction["isp_to"] + 1)
    changes: dict[str, dict[int, int]] = {}
    for order_id, energy in sorted(fills.items()):
        order = orders[order_id]
        per_isp = energy // len(isps) * (1 if order["side"] == "buy" else -1)
        change = changes.setdefault(order["brp"], dict.fromkeys(isps, 0))
        for isp in isps:
            change[isp] += per_isp
    positions.correct(ctx, auction["date"], auction_id, changes)


def _settle(ctx: ContractContext, caller: Caller, args: Named) -> Result:
    auction = _operated(ctx, caller, args.auction, "cleared")
    orders = local_energy.orders_of(ctx, args.auction)
    cleared = need(ctx, key("local_clearing", args.auction), "not_cleared", f"{args.auction} is not cleared", "auction")
    postings = Postings(auction["product"])
    pot = escrow_account(auction["operator"], args.auction)
    lines = []
    left = 0
    for order_id, order in sorted(orders.items()):
        actor, escrow = actor_account(order["actor"]), escrow_account(order["actor"], args.auction)
        line = _line(order_id, order, cleared, auction["grid_fee_nano_eur_per_wh"])
        cash, fee = line["cash_micro_eur"], line["fee_micro_eur"]
        postings.transfer(escrow, actor, order["escrow_micro_eur"], "escrow_back", order_id)
        postings.transfer(pot, actor, cash, "energy", order_id)
        postings.transfer(actor, fees_account(auction["operator"]), fee, "grid_fee", order_id)
        left -= cash
        if line["energy_j"]:
            lines.append(line)
    postings.transfer(pot, ROUNDING, left, "rounding", args.auction)
    postings.commit(ctx)
    record = {"lines": lines, "rounding_micro_eur": left}
    save(ctx, key("local_settlement", args.auction), record)
    local_energy.set_status(ctx, args.auction, auction, "settled")
    announce(ctx, "local_energy.settled", {"auction": args.auction, **record})
    return {"auction": args.auction, "lines": len(lines), "rounding_micro_eur": left}


def _line(order_id: str, order: Record, cleared: Record, fee: int) -> Record:
    """volume × price for one order: cash to the actor (negative: from it), and the fee that a buyer pays."""
    energy = cleared["fills"].get(order_id, 0)
    price = cleared["price_nano_eur_per_wh"]
    sign = -1 if order["side"] == "buy" else 1
    return {
        "order_id": order_id,
        "actor": order["actor"],
        "side": order["side"],
        "energy_j": energy,
        "price_nano_eur_per_wh": price,
        "cash_micro_eur": value(energy, sign * price).net_micro_eur if energy else 0,
        "fee_micro_eur": value(energy, fee).net_micro_eur if order["side"] == "buy" else 0,
    }


def _cleared(ctx: ContractContext, args: Named) -> Any:
    return need(ctx, key("local_clearing", args.auction), "not_cleared", f"{args.auction} is not cleared", "auction")


def _settled(ctx: ContractContext, args: Named) -> Any:
    return need(ctx, key("local_settlement", args.auction), "not_settled", f"{args.auction} is not settled", "auction")


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("local_energy.clear", Named, _clear, OPERATORS),
    Transaction("local_energy.settle", Named, _settle, OPERATORS),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("local_energy.clearing", Named, _cleared),
    Query("local_energy.settlement", Named, _settled),
)
