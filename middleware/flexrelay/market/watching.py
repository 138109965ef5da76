"""The buyer's proof of delivery: its gateway watches the meters of the orders that it bought, before the day begins."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from flexrelay.dispatch import Delivery, DispatchOrder
from flexrelay.ledger.port import Ledger, LedgerError
from flexrelay.projections import Document, News, Views
from flexrelay.store import StoreUnavailable
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.intervals import CalendarDay

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0


class Watching:
    """Follows the orders whose buyer is of this organisation. Which meters show an order's delivery was pinned on the
    ledger when it was ordered. `day_of` is the published calendar."""

    def __init__(
        self,
        org: str,
        views: Views,
        ledger: Ledger,
        delivery: Delivery,
        day_of: Callable[[str], CalendarDay | None],
    ) -> None:
        self._org = org
        self._views = views
        self._ledger = ledger
        self._delivery = delivery
        self._day_of = day_of
        self.news = News("congestion.ordered", "calendar.published")
        self._watched: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.news.wait()
            try:
                bought = [order for order in await self._views.documents("order") if self._concerns(order)]
                done = [await self._watch(order) for order in bought]
            except (StoreUnavailable, LedgerError) as error:
                log.warning("orders of %s cannot be watched now: %s; trying again", self._org, error)
                done = [False]
            if not all(done):
                self.news.again()
                await asyncio.sleep(RETRY_S)

    def _concerns(self, document: Document) -> bool:
        return document.body["buyer_org"] == self._org and document.id not in self._watched

    async def _watch(self, document: Document) -> bool:
        """False while the order's calendar day is on the way."""
        day = self._day_of(document.body["date"])
        if day is None:
            return False
        try:
            meters = await self._ledger.evaluate("congestion.order_metering", {"order_id": document.id})
        except Refused as error:
            log.error("order %s is not watched: %s", document.id, error)
        else:
            order = DispatchOrder.from_event(document.body, day)
            await self._delivery.watch(order, [did for did in meters.values() if did])
        self._watched.add(document.id)
        return True
