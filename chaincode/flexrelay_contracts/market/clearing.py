"""Clearing of a congestion auction: the merit order of options, pay-as-bid, after the gate has closed.

It reads public records only, so that any organisation can execute and endorse it: sealed offers are opened before. The
buyer waits for them until `opening_ends_at`; what is sealed after that is left out and gets back what it holds.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.accounts import Postings, actor_account, escrow_account
from flexrelay_contracts.market.auctions import Named, find, lapses_at, opening_ends_at, product_of, set_status
from flexrelay_contracts.market.awards import give_award
from flexrelay_contracts.market.metering import pin_metering
from flexrelay_contracts.market.offer import (
    collateral_of,
    drop_contents,
    requested_energies,
    reservation_of,
    standing_offers,
)
from flexrelay_contracts.market.options import Option, needs, powers, price_micro_eur
from flexrelay_contracts.market.request import RequestedIsp, load_request
from flexrelay_contracts.market.reservations import Reservations
from flexrelay_contracts.market.terms import BUYERS
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules import activation
from flexrelay_contracts.rules.orders import Order, pro_rata
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, need, save
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.product import Product


@dataclass(frozen=True, slots=True)
class _Taken:
    """An option that the selection took."""

    offer_id: str
    offer: Record
    option: Option
    percent: int
    power_w: list[int]


def order_id(auction: str, aggregator: str, offer_id: str) -> str:
    """Short, and the same wherever it is computed."""
    return "order-" + sha256(f"{auction}\n{aggregator}\n{offer_id}".encode()).hexdigest()[:20]


def _clear(ctx: ContractContext, caller: Caller, args: Named) -> Result:
    auction = find(ctx, args.auction)
    if auction["buyer"] != caller.did:
        raise Refused("not_buyer", f"auction {args.auction} is cleared by its buyer", "auction")
    if auction["status"] != "closed":
        raise Refused("auction_status", f"auction {args.auction} is {auction['status']}, not closed", "auction")
    product, day = product_of(ctx, auction), calendar.day(ctx, auction["date"])
    request = load_request(ctx, args.auction)
    lapses = lapses_at(product, day, request[0].isp)
    if market_time(ctx) >= lapses:
        raise Refused("lapsed", f"auction {args.auction} could be cleared until {lapses}", "auction")
    offers = standing_offers(ctx, args.auction)
    unopened = [offer_id for offer_id, record in offers if record["status"] == "sealed"]
    ends = opening_ends_at(auction, lapses)
    if unopened and market_time(ctx) < ends:
        message = f"offer {unopened[0]} is sealed; open it, or clear without it from {ends} on"
        raise Refused("offer_sealed", message, "auction")
    contents = {
        offer_id: tuple(Option.model_validate(option) for option in record["options"])
        for offer_id, record in offers
        if record["status"] == "open"
    }
    selection = _select(args.auction, request, contents)
    chosen = {taken.option: taken.percent for taken in selection.activations}
    taken = [
        _Taken(offer_id, record, option, chosen[name], powers(option, chosen[name]))
        for offer_id, record in offers
        for option in contents.get(offer_id, ())
        if (name := _option_key(offer_id, option)) in chosen
    ]
    rooms = _rooms(args.auction, auction["direction"], request, taken)
    orders = [
        _order(args.auction, auction, product, day, request, item, room)
        for item, room in zip(taken, rooms, strict=True)
    ]
    _reserve(ctx, day, args.auction, offers, taken)
    _post(ctx, args.auction, auction, product, offers, orders)
    for order in orders:
        save(ctx, key("order", order["order_id"]), order)
        announce(ctx, "congestion.ordered", order)
    give_award(ctx, args.auction, auction["buyer_org"], orders)
    sold = [frozenset(share.connection for share in item.option.connections) for item in taken]
    pin_metering(ctx, orders, {order["order_id"]: names for order, names in zip(orders, sold, strict=True)})
    for offer_id, record in offers:
        if record["status"] == "sealed":
            drop_contents(ctx, args.auction, offer_id, record)
            save(ctx, key("offer", args.auction, offer_id), {**record, "status": "unopened"})
    result = {
        "auction": args.auction,
        "orders": [order["order_id"] for order in orders],
        "options": {offer_id: _shown(offer_id, contents[offer_id], chosen) for offer_id in sorted(contents)},
        "unopened": unopened,
        "uncovered_w": [-(-left // 100_000) for left in selection.uncovered],
        "method": selection.method,
        "market_ms": market_time(ctx),
    }
    save(ctx, key("clearing", args.auction), result)
    set_status(ctx, args.auction, auction, "cleared")
    announce(ctx, "congestion.cleared", {name: value for name, value in result.items() if name != "options"})
    return {"auction": args.auction, "orders": result["orders"], "uncovered_w": result["uncovered_w"]}


def _select(auction: str, request: list[RequestedIsp], contents: dict[str, tuple[Option, ...]]) -> activation.Selection:
    """The price of an option is in n€/Wh × W: proportional to money, since all ISPs have one length."""
    wanted = [index for index, asked in enumerate(request) if asked.disposition == "requested"]
    need_w = [max(abs(request[index].min_w), abs(request[index].max_w)) for index in wanted]
    options = []
    for offer_id in sorted(contents):
        for option in contents[offer_id]:
            power = tuple(abs(option.isps[index].power_w) for index in wanted)
            cost = option.price_nano_eur_per_wh * sum(power)
            name = _option_key(offer_id, option)
            options.append(activation.Option(name, offer_id, power, cost, option.min_activation_percent))
    return activation.select(auction, need_w, options)


def _option_key(offer_id: str, option: Option) -> str:
    return f"{offer_id}/{option.option_id}"


def _rooms(auction: str, direction: str, request: list[RequestedIsp], taken: list[_Taken]) -> list[list[int]]:
    """Watts of rebound room per order and ISP (0 in requested ISPs); they never add up to more than the request's.

    What the orders declared as rebound comes first (cut pro rata where it is too much), what is left goes by their
    ordered power (nothing where all of them are ordered less than a watt).
    """
    rooms = [[0] * len(request) for _ in taken]
    weights = [
        sum(abs(p) for p, asked in zip(item.power_w, request, strict=True) if asked.disposition == "requested")
        for item in taken
    ]
    for index, asked in enumerate(request):
        if asked.disposition == "requested" or not taken:
            continue
        room = -asked.min_w if direction == "withdrawal" else asked.max_w
        sign = -1 if direction == "withdrawal" else 1
        declared = [max(sign * item.power_w[index], 0) for item in taken]
        if sum(declared) > room:
            names = [Order(item.offer_id, quantity, 0) for item, quantity in zip(taken, declared, strict=True)]
            shares = pro_rata(auction, names, room)
        else:
            left, total = room - sum(declared), max(sum(weights), 1)
            shares = [d + left * w // total for d, w in zip(declared, weights, strict=True)]
        for place, share in enumerate(shares):
            rooms[place][index] = share
    return rooms


def _order(
    auction_id: str, auction: Record, product: Product, day: CalendarDay,
    request: list[RequestedIsp], taken: _Taken, room_w: list[int],
) -> Record:  # fmt: skip
    """The order as it stands on the ledger and in the event."""
    price = taken.option.price_nano_eur_per_wh
    energies = requested_energies(request, taken.power_w, day.isp_seconds)
    return {
        "order_id": order_id(auction_id, taken.offer["aggregator"], taken.offer_id),
        "auction": auction_id,
        "product": auction["product"],
        "version": auction["version"],
        "congestion_point": auction["congestion_point"],
        "date": auction["date"],
        "direction": auction["direction"],
        "buyer": auction["buyer"],
        "buyer_org": auction["buyer_org"],
        "aggregator": taken.offer["aggregator"],
        "aggregator_org": taken.offer["org"],
        "offer_id": taken.offer_id,
        "option_id": taken.option.option_id,
        "activation_percent": taken.percent,
        "prognosis_revision": taken.offer["prognosis_revision"],
        "price_nano_eur_per_wh": price,
        "penalty_nano_eur_per_wh": product.penalty_nano_eur_per_wh,
        "isps": [
            {"isp": asked.isp, "disposition": asked.disposition, "power_w": power, "room_w": room}
            for asked, power, room in zip(request, taken.power_w, room_w, strict=True)
        ],
        "buyer_escrow_micro_eur": price_micro_eur(price, energies),
        "collateral_micro_eur": collateral_of(product, request, taken.option, day.isp_seconds, taken.percent),
    }


def _reserve(
    ctx: ContractContext, day: CalendarDay, auction: str, offers: list[tuple[str, Record]], taken: list[_Taken]
) -> None:
    """Confirm what the orders use, give the rest back."""
    kept = {item.offer_id: needs(item.option, day, item.percent) for item in taken}
    reservations = Reservations(ctx, day)
    for offer_id, record in offers:
        for connection, direction in record["slots"]:
            keep = kept.get(offer_id, {}).get((connection, direction))
            reservations.release((connection, direction), reservation_of(auction, offer_id), keep)
    reservations.commit()


def _post(
    ctx: ContractContext, auction_id: str, auction: Record, product: Product,
    offers: list[tuple[str, Record]], orders: list[Record],
) -> None:  # fmt: skip
    """The buyer's price into escrow, the providers' surplus collateral out of it."""
    by_offer = {order["offer_id"]: order for order in orders}
    postings = Postings(product.product)
    buyer = auction["buyer"]
    for offer_id, record in offers:
        order = by_offer.get(offer_id)
        aggregator = record["aggregator"]
        surplus = record["collateral_micro_eur"] - (order["collateral_micro_eur"] if order else 0)
        escrow = escrow_account(aggregator, auction_id)
        postings.transfer(escrow, actor_account(aggregator), surplus, "collateral_back", offer_id)
        if order is not None:
            amount, ref = order["buyer_escrow_micro_eur"], order["order_id"]
            postings.transfer(actor_account(buyer), escrow_account(buyer, auction_id), amount, "escrow", ref)
    postings.commit(ctx)


def find_clearing(ctx: ContractContext, auction: str) -> Record:
    """The result of a cleared auction; `options` by offer, of which the taken one keeps its connections' shares.

    Refused('not_cleared').
    """
    return need(ctx, key("clearing", auction), "not_cleared", f"auction {auction} is not cleared", "auction")


def _shown(offer_id: str, options: tuple[Option, ...], chosen: dict[str, int]) -> list[Record]:
    """Options as the result holds them: who would have delivered one that was not taken does not matter any more."""
    result = []
    for option in options:
        record = option.model_dump(mode="json")
        result.append(record if _option_key(offer_id, option) in chosen else {**record, "connections": []})
    return result


def _one(ctx: ContractContext, args: Named) -> Any:
    return find_clearing(ctx, args.auction)


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction("congestion.clear", Named, _clear, BUYERS),)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.clearing", Named, _one),)
