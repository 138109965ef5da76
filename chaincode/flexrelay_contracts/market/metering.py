"""Whose meters measure an order: pinned when it is made, because one of its parties writes the master data.

The DSO buys, and may supersede master data of the past; an owner may end a mandate from the next day on. Neither
changes which connections an order is settled over, and whose signatures count in a dispute over it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flexrelay_contracts import masterdata
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.orders import OrderNamed
from flexrelay_contracts.runtime import Query, Transaction
from flexrelay_contracts.state import Record, key, need, save


def pin_metering(ctx: ContractContext, orders: Sequence[Record], sold: Mapping[str, frozenset[str]]) -> None:
    """Write for each new order of one auction the connections that it is settled over, and their meters.

    They are all that its aggregator represents there, and what the order has `sold` (connections by order id) even if a
    mandate went elsewhere since the offer: an order without connections could never be settled. What one order has sold
    is in no other's portfolio (unless both have sold of it, one after the other's mandate).
    """
    if not orders:
        return
    point, date = orders[0]["congestion_point"], orders[0]["date"]
    sellers: dict[str, list[str]] = {}
    for order_id in sorted(sold):
        for name in sold[order_id]:
            sellers.setdefault(name, []).append(order_id)
    represents = {order["aggregator"]: [order["order_id"]] for order in orders}
    pinned: dict[str, dict[str, Record]] = {order["order_id"]: {} for order in orders}

    def pin(name: str, order_ids: Sequence[str]) -> None:
        meter = masterdata.at(ctx, "meter", name, date) if order_ids else None
        for order_id in order_ids:
            pinned[order_id][name] = {"connection": name, "meter": meter["device"] if meter else ""}

    for place in masterdata.connections_at(ctx, point, date):
        name = place["connection"]
        mandate = masterdata.at(ctx, "mandate", name, date)
        pin(name, sellers.pop(name, []) or represents.get(mandate["aggregator"] if mandate else "", []))
    for name, order_ids in sorted(sellers.items()):  # they hang elsewhere now
        pin(name, order_ids)
    for order_id, found in pinned.items():
        save(ctx, _key(order_id), {"connections": [found[name] for name in sorted(found)]})


def metering_of(ctx: ContractContext, order_id: str) -> dict[str, str]:
    """connection → DID of its meter ("": none), ordered by connection. Refused('unknown_order')."""
    record = need(ctx, _key(order_id), "unknown_order", f"there is no order {order_id}", "order_id")
    return {item["connection"]: item["meter"] for item in record["connections"]}


def _key(order_id: str) -> str:
    return key("order_metering", order_id)


def _one(ctx: ContractContext, args: OrderNamed) -> Any:
    return metering_of(ctx, args.order_id)


TRANSACTIONS: tuple[Transaction[Any], ...] = ()
QUERIES: tuple[Query[Any], ...] = (Query("congestion.order_metering", OrderNamed, _one),)
