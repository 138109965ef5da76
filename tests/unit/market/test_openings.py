"""An aggregator's gateway opens its sealed offers by itself once the gate has closed, also after a restart.

The demo clears what gateways have opened on the real ledger (tests/acceptance); here are the cases around it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flexrelay.market.desk import IntentExpired
from flexrelay.market.openings import Openings
from flexrelay.projections import Document, Event
from flexrelay_contracts.refusal import Refused
from flexrelay_sdk.testkit import until

AUCTION = "congestion-day-ahead.point.2016-05-20"


def offer(offer_id: str, aggregator: str, *, sealed: bool = True) -> Document:
    body = {
        "auction": AUCTION,
        "offer_id": offer_id,
        "aggregator": aggregator,
        "contents_hash": "ab" * 32 if sealed else "",
    }
    return Document("offer", f"{AUCTION}/{offer_id}", "standing", body, 1, "t", 1, "t")


@dataclass
class Tables:
    """What the projections hold."""

    offers: list[Document]
    events_: list[Event] = field(default_factory=list)

    status: str = "closed"
    read: int = 0

    async def document(self, kind: str, identifier: str) -> Document:
        assert (kind, identifier) == ("auction", AUCTION)
        self.read += 1
        return Document("auction", AUCTION, self.status, {}, 1, "t", 1, "t")

    async def under(self, kind: str, first: str) -> list[Document]:
        assert (kind, first) == ("offer", AUCTION)
        return self.offers

    async def named(self, name: str, after: int) -> AsyncIterator[Event]:
        for event in self.events_:
            if event.name == name and event.sequence > after:
                yield event

    def tell(self, name: str, **payload: Any) -> Event:
        event = Event(len(self.events_) + 1, 1, "t", 0, name, {"auction": AUCTION, **payload})
        self.events_.append(event)
        return event


class Contents:
    """The ledger's one query that is asked here."""

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        assert function == "congestion.offer_contents"
        if args["offer_id"] == "lost":
            raise Refused("offer_unavailable", "not here")
        return {"salt": "cd" * 32, "options": [args["offer_id"]]}


@dataclass
class Seat:
    did: str = "mine"
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    expiring: int = 0

    async def do(self, function: str, args: Mapping[str, Any], *, intent_id: str) -> None:
        self.sent.append((function, args["offer_id"], args["options"], intent_id))
        if self.expiring:
            self.expiring -= 1
            raise IntentExpired("the ledger was away")


async def run_until_idle(tables: Tables, seat: Seat, *events: Event, sent: int = 0) -> None:
    """Until so many are sent in all, and a moment longer."""
    openings = Openings(tables, Contents(), lambda did: seat if did == "mine" else None)  # type: ignore[arg-type]
    task = asyncio.create_task(openings.run())
    await asyncio.sleep(0)
    openings.news.heard(events)
    await until(lambda: len(seat.sent) >= sent)
    await asyncio.sleep(0.2)
    task.cancel()


async def test_only_own_sealed_offers_are_opened_and_only_after_the_gate() -> None:
    offers = [offer("a", "mine"), offer("b", "another"), offer("lost", "mine"), offer("open", "mine", sealed=False)]
    tables, seat = Tables(offers), Seat()
    await run_until_idle(tables, seat)
    assert seat.sent == []
    await run_until_idle(tables, seat, tables.tell("congestion.gate_closed"), sent=1)
    assert [(function, name, options) for function, name, options, _ in seat.sent] == [
        ("congestion.open_offer", "a", ["a"])
    ]
    assert len(seat.sent[0][3]) <= 64


async def test_a_restart_asks_with_the_same_intent_and_not_when_it_is_open() -> None:
    tables, seat = Tables([offer("a", "mine")]), Seat()
    tables.tell("congestion.gate_closed")
    await run_until_idle(tables, seat, sent=1)
    await run_until_idle(tables, seat, sent=2)
    assert len(seat.sent) == 2 and seat.sent[0] == seat.sent[1]
    opened, tables.offers = tables.offers, [replace(tables.offers[0], status="open")]
    await run_until_idle(tables, seat)
    assert len(seat.sent) == 2
    tables.offers, tables.status = opened, "cleared"
    await run_until_idle(tables, seat)
    assert len(seat.sent) == 2


async def test_an_opening_that_expired_is_sent_again_under_another_id() -> None:
    tables, seat = Tables([offer("a", "mine"), offer("b", "mine")]), Seat(expiring=2)
    tables.tell("congestion.gate_closed")
    await run_until_idle(tables, seat, sent=4)
    assert [name for _, name, _, _ in seat.sent] == ["a", "a", "a", "b"]
    first, second, third, _ = (intent_id for *_, intent_id in seat.sent)
    assert (second, third) == (f"{first}.2", f"{first}.3") and len(third) <= 64
    seat.sent.clear()
    await run_until_idle(tables, seat, sent=2)  # a restart finds the first try again, and how it ended
    assert [intent_id for _, name, _, intent_id in seat.sent if name == "a"] == [first]


async def test_an_auction_is_looked_at_once() -> None:
    tables, seat = Tables([offer("a", "mine")]), Seat()
    openings = Openings(tables, Contents(), lambda did: seat)  # type: ignore[arg-type,return-value]
    for told in range(1, 4):
        tables.tell("congestion.gate_closed")
        await openings._step()
        assert tables.read == told and not openings._sealed
