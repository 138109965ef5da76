"""The buyer's proof of delivery: its gateway watches the meters of the orders that it bought, before the day begins."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from flexrelay.dispatch import Delivery, DispatchOrder
from flexrelay.ledger.port import Ledger, LedgerError
from flexrelay.projections import News, Views
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
        self._seen = 0
        self._unwatched: dict[str, Mapping[str, Any]] = {}
        """Bought orders by their ids."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.news.wait()
            try:
                done = await self._step()
            except (StoreUnavailable, LedgerError) as error:
                log.warning("orders of %s cannot be watched now: %s; trying again", self._org, error)
                done = False
            if not done:
                self.news.again()
                await asyncio.sleep(RETRY_S)

    async def _step(self) -> bool:
        """Whether every bought order is watched: the calendar day of one may be on the way."""
        async for event in self._views.named("congestion.ordered", self._seen):
            if event.payload["buyer_org"] == self._org:
                self._unwatched[event.payload["order_id"]] = event.payload
            self._seen = event.sequence
        for order_id, bought in list(self._unwatched.items()):
            day = self._day_of(bought["date"])
            if day is not None:
                await self._watch(order_id, bought, day)
                del self._unwatched[order_id]
        return not self._unwatched

    async def _watch(self, order_id: str, bought: Mapping[str, Any], day: CalendarDay) -> None:
        try:
            meters = await self._ledger.evaluate("congestion.order_metering", {"order_id": order_id})
        except Refused as error:
            log.error("order %s is not watched: %s", order_id, error)
            return
        await self._delivery.watch(DispatchOrder.from_event(bought, day), [did for did in meters.values() if did])
