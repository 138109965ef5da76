"""The buyer's gateway watches the meters of what it bought, by itself."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flexrelay.dispatch import DISPATCH, Delivery, DispatchOrder
from flexrelay.journal.port import Entry
from flexrelay.ledger.port import LedgerUnavailable
from flexrelay.market import watching
from flexrelay.market.watching import Watching
from flexrelay.projections import Document, Event
from flexrelay.store import Store
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk.testkit import until

DAY = CalendarDay(date="2016-05-20", start=1_463_695_200_000, isps=96, isp_seconds=900, working=True)


def order(name: str, buyer_org: str) -> Document:
    isps = [{"isp": 1, "power_w": 5}, {"isp": 2, "power_w": 5}]
    body = {"order_id": name, "aggregator": "agg", "buyer_org": buyer_org, "date": DAY.date, "isps": isps}
    return Document("order", name, "ordered", body, 1, "t", 1, "t")


@dataclass
class Orders:
    known: list[Document]

    async def named(self, name: str, after: int) -> AsyncIterator[Event]:
        assert name == "congestion.ordered"
        for sequence, order in enumerate(self.known[after:], after + 1):
            yield Event(sequence, 1, "t", 1, name, order.body)


@dataclass
class Metering:
    """What the ledger has pinned; unreachable the first times."""

    meters: dict[str, dict[str, str]]
    unreachable: int = 0
    asked: list[str] = field(default_factory=list)

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        assert function == "congestion.order_metering"
        self.asked.append(args["order_id"])
        if self.unreachable:
            self.unreachable -= 1
            raise LedgerUnavailable("later")
        if args["order_id"] not in self.meters:
            raise Refused("unknown_order", "there is no such order", "order_id")
        return self.meters[args["order_id"]]


def reading(position: int, did: str, observed_at: int) -> Entry:
    measurement = Measurement(did, observed_at, {"import_j": 1})
    return Entry(position, 0, did, "mqtt", "c", "t", 1, True, b"x", (measurement,))


async def test_the_meters_of_a_bought_order_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "RETRY_S", 0.02)
    orders = Orders([order("gone", "dso"), order("mine", "dso"), order("theirs", "other")])
    ledger = Metering({"mine": {"a": "did:m1", "b": ""}, "late": {"a": "did:m2"}}, unreachable=2)
    known_days: dict[str, CalendarDay] = {}
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        delivery, watched = Delivery(store, "dso"), list[str]()
        watch = delivery.watch

        async def noted(order: DispatchOrder, dids: Sequence[str]) -> None:
            await watch(order, dids)
            watched.append(order.order_id)

        monkeypatch.setattr(delivery, "watch", noted)
        made = Watching("dso", orders, ledger, delivery, known_days.get)  # type: ignore[arg-type]  # what it uses of them
        task = asyncio.create_task(made.run())
        await asyncio.sleep(0.1)
        assert ledger.asked == []  # its calendar day is not known yet
        known_days[DAY.date] = DAY
        await until(lambda: "mine" in watched)
        orders.known.append(order("late", "dso"))
        made.news.heard([Event(1, 1, "t", 1, "congestion.ordered", {})])
        await until(lambda: "late" in watched)
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        entries = [
            reading(1, "did:m1", DAY.start - 1),
            reading(2, "did:m1", DAY.start),
            reading(3, "did:m2", DAY.start + 900_000),
            reading(4, "did:m3", DAY.start),
            reading(5, "did:m1", DAY.start + 1_800_001),
        ]
        await delivery.consume(entries)
        assert [found.position for found in await delivery.readings("mine")] == [2]
        assert [found.position for found in await delivery.readings("late")] == [3]
        assert await delivery.readings("theirs") == []
    assert ledger.asked.count("mine") == 1 and ledger.asked.count("gone") <= 4 and "theirs" not in ledger.asked
