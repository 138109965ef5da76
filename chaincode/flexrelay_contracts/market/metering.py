"""Whose meters measure an order: pinned when it is made, because one of its parties writes the master data.

The DSO buys, and may supersede master data of the past; an owner may end a mandate from the next day on. Neither
changes which connections an order is settled over, and whose signatures count in a dispute over it.
"""

from collections.abc import Sequence
from typing import Any

from flexrelay_contracts import masterdata
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.orders import OrderNamed
from flexrelay_contracts.runtime import Query, Transaction
from flexrelay_contracts.state import Record, key, need, save


def pin_metering(ctx: ContractContext, orders: Sequence[Record]) -> None:
    """Write for each new order of one auction every connection that its aggregator represents there, and its meter."""
    if not orders:
        return
    point, date = orders[0]["congestion_point"], orders[0]["date"]
    represented: dict[str, list[Record]] = {order["aggregator"]: [] for order in orders}
    for place in masterdata.connections_at(ctx, point, date):
        name = place["connection"]
        mandate = masterdata.at(ctx, "mandate", name, date)
        if mandate is not None and mandate["aggregator"] in represented:
            meter = masterdata.at(ctx, "meter", name, date)
            pinned = {"connection": name, "meter": meter["device"] if meter else ""}
            represented[mandate["aggregator"]].append(pinned)
    for order in orders:
        save(ctx, _key(order["order_id"]), {"connections": represented[order["aggregator"]]})


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
