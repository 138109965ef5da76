"""The award of an auction: which orders its buyer gave, under an endorsement policy of its own.

The award's key stands from the request on, and only the buyer's organisation together with another one can write it. An
order counts only when the award names it: so no two other organisations can give an order in the buyer's name. Nothing
else carries such a policy: whoever an order, a settlement or a verdict is against could block it by not endorsing it.
"""

from hashlib import sha256

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller
from flexrelay_contracts.state import Record, key, load, save
from flexrelay_schemas.canonical import canonical


def promise_award(ctx: ContractContext, auction: str, caller: Caller) -> None:
    """Write the award of a new auction, without orders, and say who endorses what becomes of it."""
    name = key("award", auction)
    save(ctx, name, {"buyer_org": caller.org, "orders": {}})
    others = [org for org in caller.network["organisations"] if org != caller.org]
    ctx.set_key_policy(name, [caller.org], others)


def give_award(ctx: ContractContext, auction: str, buyer_org: str, orders: list[Record]) -> None:
    """Name the orders, by the digests of their records."""
    digests = {order["order_id"]: _digest(order) for order in orders}
    save(ctx, key("award", auction), {"buyer_org": buyer_org, "orders": digests})


def require_award(ctx: ContractContext, order: Record) -> None:
    """Refused('not_awarded') unless the order is what its auction's award names."""
    award = load(ctx, key("award", order["auction"]))
    if award is None or award["orders"].get(order["order_id"]) != _digest(order):
        message = f"order {order['order_id']} is not in the award of {order['auction']}"
        raise Refused("not_awarded", message, "order_id")


def _digest(order: Record) -> str:
    return sha256(canonical({**order, "v": 1})).hexdigest()
