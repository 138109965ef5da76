"""Activating an order: device commands on disk, then sent, and their hash on the ledger under the order's id."""

from collections.abc import Sequence

from flexrelay.dispatch import Dispatcher, DispatchOrder, Plan
from flexrelay.market.desk import Desk


async def activate(dispatcher: Dispatcher, desk: Desk, order: DispatchOrder, plan: Plan) -> list[str]:
    """Accept the order's commands for sending and record on the ledger what is commanded; the command ids.

    Asked again after a restart it adds nothing twice. Raises NoCapacity, and what `Desk.do` raises.
    """
    commands = await dispatcher.accept(order, plan.commands(order), watch=_watched(plan, order))
    digest = await dispatcher.commanded_hash(order.order_id)
    await _record(desk, order, "commanded", digest)
    return commands


async def report(dispatcher: Dispatcher, desk: Desk, order: DispatchOrder) -> str:
    """Wait until every command has ended, and record the hash of what came of them on the ledger; the hash."""
    await dispatcher.finished(order.order_id)
    digest = await dispatcher.activated_hash(order.order_id)
    await _record(desk, order, "activated", digest)
    return digest


async def _record(desk: Desk, order: DispatchOrder, stage: str, digest: str) -> None:
    args = {"order_id": order.order_id, "stage": stage, "hash": digest}
    await desk.do("congestion.activation", args, intent_id=f"{order.order_id}.{stage}", correlation_id=order.order_id)


def _watched(plan: Plan, order: DispatchOrder) -> Sequence[str]:
    return sorted({command.did for command in plan.commands(order)})
