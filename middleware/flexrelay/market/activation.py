"""Activating orders: an award becomes device commands with expiry, its telemetry the proof of delivery.

`Activations` follows the awards of this gateway's own aggregators, so nobody has to start it: commands are on disk
before they are sent, and what was commanded and what came of it is recorded on the ledger under the order's id. Every
step may be come back to after a restart.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from flexrelay.dispatch import Dispatcher, DispatchOrder, NoCapacity, Plan
from flexrelay.market.desk import Desk, insist
from flexrelay.outbox import OutboxFull
from flexrelay.projections import Document, News, Views
from flexrelay.store import StoreUnavailable
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.intervals import CalendarDay

log = logging.getLogger(__name__)

TICK_S: Final = 0.5
RETRY_S: Final = 5.0
"""After the store or the outbox could not take anything."""


async def accept(dispatcher: Dispatcher, order: DispatchOrder, plan: Plan) -> None:
    """Accept the order's commands for sending. Asked again after a restart it adds nothing. Raises NoCapacity."""
    if not await dispatcher.commands(order.order_id):  # what was planned stands, whichever devices are there now
        planned = plan.commands(order)
        await dispatcher.accept(order, planned, watch=sorted({command.did for command in planned}))


async def report(dispatcher: Dispatcher, desk: Desk, order_id: str) -> None:
    """Wait until every command has ended, and record the hash of what came of them on the ledger."""
    await dispatcher.finished(order_id)
    await _record(desk, order_id, "activated", await dispatcher.activated_hash(order_id))


async def _record(desk: Desk, order_id: str, stage: str, digest: str) -> None:
    args = {"order_id": order_id, "stage": stage, "hash": digest}
    await insist(desk, "congestion.activation", args, intent_id=f"{order_id}.{stage}", correlation_id=order_id)


class Activations:
    """Runs the orders of this gateway's aggregators.

    `desk_of` gives the desk of an aggregator that this gateway speaks for (None: another's), `plan` its strategy
    (None: it has no devices here), `day_of` the published calendar.
    """

    def __init__(
        self,
        views: Views,
        dispatcher: Dispatcher,
        desk_of: Callable[[str], Desk | None],
        plan: Plan | None,
        day_of: Callable[[str], CalendarDay | None],
        market_now: Callable[[], int],
    ) -> None:
        self._views = views
        self._dispatcher = dispatcher
        self._desk_of = desk_of
        self._plan = plan
        self._day_of = day_of
        self._market_now = market_now
        self.news = News("congestion.ordered")
        self._seen = 0
        self._open: dict[str, Document] = {}
        self._accepted: dict[str, tuple[Desk, DispatchOrder]] = {}
        self._commanded: set[str] = set()

    async def run(self) -> None:
        """Until cancelled. An order that cannot be activated is said once; it does not hold up the others."""
        while True:
            try:
                await self._step()
            except (StoreUnavailable, OutboxFull) as error:
                log.warning("orders cannot be activated now: %s; trying again", error)
                self.news.again()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(TICK_S)

    async def _step(self) -> None:
        if self.news.taken():
            async for event in self._views.named("congestion.ordered", self._seen):
                document = await self._views.document("order", event.payload["order_id"])
                if document is not None and not _over(document):
                    self._open[document.id] = document
                self._seen = event.sequence
        await self._each(self._accept)  # of all orders before the ledger, which may be away, is waited for
        await self._each(self._follow)

    async def _each(self, step: Callable[[Document], Awaitable[bool]]) -> None:
        """`step` tells whether there is nothing more to do for the order here."""
        for document in list(self._open.values()):
            try:
                ended = await step(document)
            except (NoCapacity, Refused) as error:
                log.error("order %s is not activated: %s", document.id, error)
                ended = True
            if ended:
                self._commanded.discard(document.id)
                self._accepted.pop(document.id, None)
                del self._open[document.id]

    async def _accept(self, document: Document) -> bool:
        if document.id in self._accepted:
            return False
        desk = self._desk_of(document.body["aggregator"])
        if desk is None or self._plan is None:
            return True  # another gateway's order
        day = self._day_of(document.body["date"])
        if day is not None:  # else it is on the way
            order = DispatchOrder.from_event(document.body, day)
            await accept(self._dispatcher, order, self._plan)
            self._accepted[document.id] = desk, order
        return False

    async def _follow(self, document: Document) -> bool:
        if document.id not in self._accepted:
            return False
        desk, order = self._accepted[document.id]
        if order.order_id not in self._commanded:
            await _record(desk, order.order_id, "commanded", await self._dispatcher.commanded_hash(order.order_id))
            self._commanded.add(order.order_id)
        if self._market_now() < order.until_ms:
            return False
        if not all(record.state.terminal for record in await self._dispatcher.commands(order.order_id)):
            return False  # the last ones expire now
        await report(self._dispatcher, desk, order.order_id)
        return True


def _over(document: Document) -> bool:
    """Whether the ledger already holds what came of the order's commands."""
    return any(record["stage"] == "activated" for record in document.body.get("activations", ()))
