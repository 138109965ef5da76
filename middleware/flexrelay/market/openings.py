"""Opening sealed offers: when an auction's gate has closed, an aggregator's gateway opens the offers that it sealed.

Nobody has to start it, and an offer is opened once: the intent's id follows from auction and offer. An intent that
expires while the ledger is away is followed by another. What the contract refuses (opened by the buyer already, lapsed)
is said once and left.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Final

from flexrelay.ledger.port import Ledger, LedgerError
from flexrelay.market.congestion import opening
from flexrelay.market.desk import Desk, insist
from flexrelay.outbox import OutboxFull
from flexrelay.projections import Document, News, Views
from flexrelay.store import StoreUnavailable
from flexrelay_contracts.refusal import Refused

log = logging.getLogger(__name__)

RETRY_S: Final = 2.0
_GATE_CLOSED: Final = "congestion.gate_closed"


class Openings:
    """Follows the gates of the auctions that this gateway's aggregators have offered in. `desk_of` gives the desk of an
    aggregator that this gateway speaks for (None: another's)."""

    def __init__(self, views: Views, ledger: Ledger, desk_of: Callable[[str], Desk | None]) -> None:
        self._views = views
        self._ledger = ledger
        self._desk_of = desk_of
        self.news = News(_GATE_CLOSED)
        self._seen = 0
        self._sealed: dict[str, Document] = {}

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
        async for event in self._views.named(_GATE_CLOSED, self._seen):
            auction = await self._views.document("auction", event.payload["auction"])
            if auction is not None and auction.status == "closed":  # not cleared since
                sealed = await self._views.under("offer", auction.id)
                self._sealed |= {offer.id: offer for offer in sealed if _is_sealed(offer)}
            self._seen = event.sequence
        for document in list(self._sealed.values()):
            desk = self._desk_of(document.body["aggregator"])
            if desk is not None:
                await self._open(desk, document)
            del self._sealed[document.id]

    async def _open(self, desk: Desk, document: Document) -> None:
        auction, offer_id = document.body["auction"], document.body["offer_id"]
        try:
            contents = await self._ledger.evaluate(
                "congestion.offer_contents", {"auction": auction, "offer_id": offer_id}
            )
            intent_id = "open-" + hashlib.sha256(f"{auction}/{offer_id}".encode()).hexdigest()[:32]
            await insist(desk, "congestion.open_offer", opening(auction, offer_id, contents), intent_id=intent_id)
        except Refused as error:
            log.warning("offer %s in auction %s is not opened by %s: %s", offer_id, auction, desk.did, error)


def _is_sealed(offer: Document) -> bool:
    return offer.status == "standing" and bool(offer.body["contents_hash"])
