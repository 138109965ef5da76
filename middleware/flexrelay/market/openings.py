"""Opening sealed offers: when an auction's gate has closed, an aggregator's gateway opens the offers that it sealed.

Nobody has to start it, and an offer is opened once: the intent's id follows from auction and offer. What the contract
refuses (opened by the buyer already, lapsed) is said once and left.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Final

from flexrelay.ledger.port import Ledger, LedgerError
from flexrelay.market.congestion import opening
from flexrelay.market.desk import Desk, IntentExpired
from flexrelay.outbox import OutboxFull
from flexrelay.projections import Document, Event, News, Views
from flexrelay.store import StoreUnavailable
from flexrelay_contracts.refusal import Refused

log = logging.getLogger(__name__)

RETRY_S: Final = 2.0
_DONE: Final = frozenset({"congestion.opened", "congestion.revoked"})


class Openings:
    """Follows the gates of the auctions that this gateway's aggregators have offered in. `desk_of` gives the desk of an
    aggregator that this gateway speaks for (None: another's)."""

    def __init__(self, views: Views, ledger: Ledger, desk_of: Callable[[str], Desk | None]) -> None:
        self._views = views
        self._ledger = ledger
        self._desk_of = desk_of
        self.news = News("congestion.gate_closed")
        self._ended: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.news.wait()
            try:
                await self._step()
            except (StoreUnavailable, OutboxFull, LedgerError) as error:
                log.warning("sealed offers cannot be opened now: %s; trying again", error)
                self.news.again()
                await asyncio.sleep(RETRY_S)

    async def _step(self) -> None:
        closed = {event.payload["auction"] for event in await self._views.events("congestion.gate_closed")}
        over = {_name(event) for name in sorted(_DONE) for event in await self._views.events(name)}
        for document in await self._views.documents("offer"):
            name = f"{document.body['auction']}/{document.body['offer_id']}"
            if (
                document.body["auction"] not in closed
                or name in over | self._ended
                or not document.body["contents_hash"]
            ):
                continue
            desk = self._desk_of(document.body["aggregator"])
            if desk is not None:
                await self._open(desk, document)
            self._ended.add(name)

    async def _open(self, desk: Desk, document: Document) -> None:
        auction, offer_id = document.body["auction"], document.body["offer_id"]
        try:
            contents = await self._ledger.evaluate(
                "congestion.offer_contents", {"auction": auction, "offer_id": offer_id}
            )
            intent_id = "open-" + hashlib.sha256(f"{auction}/{offer_id}".encode()).hexdigest()[:32]
            await desk.do("congestion.open_offer", opening(auction, offer_id, contents), intent_id=intent_id)
        except (Refused, IntentExpired) as error:
            log.warning("offer %s in auction %s is not opened by %s: %s", offer_id, auction, desk.did, error)


def _name(event: Event) -> str:
    return f"{event.payload['auction']}/{event.payload['offer_id']}"
