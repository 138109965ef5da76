"""Orders after clearing, and their activation: hashes of commands and of what the devices did, under one order id."""

from typing import Any, Literal

from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.awards import require_award
from flexrelay_contracts.market.terms import PROVIDERS, LocalId
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, need, save, scan
from flexrelay_schemas.did import Hash
from flexrelay_schemas.model import Model


class Activation(Model):
    """`hash` is the SHA-256 of the commands that were sent, or of the log of what came of them."""

    order_id: LocalId
    stage: Literal["commanded", "activated"]
    hash: Hash


class OrderNamed(Model):
    order_id: LocalId


def find_order(ctx: ContractContext, order_id: str) -> Record:
    """Refused('unknown_order' | 'not_awarded')."""
    order = need(ctx, key("order", order_id), "unknown_order", f"there is no order {order_id}", "order_id")
    require_award(ctx, order)
    return order


def _activation(ctx: ContractContext, caller: Caller, args: Activation) -> Result:
    order = find_order(ctx, args.order_id)
    if order["aggregator"] != caller.did:
        raise Refused("not_owner", f"order {args.order_id} is another aggregator's", "order_id")
    record = {"stage": args.stage, "hash": args.hash, "market_ms": market_time(ctx), "gateway": caller.gateway}
    save(ctx, key("activation", args.order_id, args.stage, ctx.tx_id), record)
    announce(ctx, "congestion.activation", {"order_id": args.order_id, **record})
    return {"order_id": args.order_id, "stage": args.stage}


def _one(ctx: ContractContext, args: OrderNamed) -> Any:
    order = find_order(ctx, args.order_id)
    activations = [
        {"tx_id": parts[-1], **record}
        for parts, record in sorted(scan(ctx, "activation", args.order_id), key=lambda item: item[1]["market_ms"])
    ]
    return {**order, "activations": activations}


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("congestion.activation", Activation, _activation, PROVIDERS, of_parties=True),
)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.order", OrderNamed, _one),)
