"""Activating orders by itself: what cannot be activated is said once and does not hold up the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flexrelay.dispatch import DISPATCH, Dispatcher, DispatchOrder, NoCapacity, Plan, Planned
from flexrelay.market import activation
from flexrelay.market.activation import Activations
from flexrelay.market.desk import IntentExpired
from flexrelay.outbox import OutboxFull
from flexrelay.projections import Document, Event
from flexrelay.store import Store
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.testkit import until

DAY = CalendarDay(date="2016-05-20", start=1_463_695_200_000, isps=96, isp_seconds=900, working=True)


def order(name: str) -> Document:
    body = {"order_id": name, "aggregator": "agg", "date": DAY.date, "isps": [{"isp": 1, "power_w": 5}]}
    return Document("order", name, "ordered", body, 1, "t", 1, "t")


@dataclass
class Orders:
    """The projections' documents."""

    known: list[Document]

    read: list[str] = field(default_factory=list)

    async def named(self, name: str, after: int) -> AsyncIterator[Event]:
        assert name == "congestion.ordered"
        for sequence, order in enumerate(self.known[after:], after + 1):
            yield Event(sequence, 1, "t", 1, name, order.body)

    async def document(self, kind: str, identifier: str) -> Document | None:
        assert kind == "order"
        self.read.append(identifier)
        return next((order for order in self.known if order.id == identifier), None)


@dataclass
class ScriptedDesk:
    """Ends an intent as the script says for its order: an exception, or well."""

    script: dict[str, list[Exception]]
    sent: list[str] = field(default_factory=list)
    did: str = "agg"

    async def do(self, function: str, args: Mapping[str, Any], *, intent_id: str, correlation_id: str) -> None:
        assert function == "congestion.activation"
        self.sent.append(intent_id)
        await asyncio.sleep(0)
        left = self.script.get(args["order_id"], [])
        if left:
            raise left.pop(0)


class OneBattery:
    def commands(self, order: DispatchOrder) -> Sequence[Planned]:
        return [Planned("did:b", "b", "set_power", {"power_w": 5}, 0, 2**52)]


class NoBattery:
    def commands(self, order: DispatchOrder) -> Sequence[Planned]:
        raise NoCapacity("revoked since")


class Obedient:
    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        await on_update(CommandUpdate(command.command_id, CommandState.ACKED, 1))


@asynccontextmanager
async def running(
    folder: Path, desk: ScriptedDesk, *names: str, plan: Plan | None = None
) -> AsyncIterator[Activations]:
    async with Store(folder / "s.db", [DISPATCH]) as store, Dispatcher(store, "t", Obedient()) as dispatcher:
        made = Activations(
            Orders([order(name) for name in names]),  # type: ignore[arg-type]  # what it reads of Views
            dispatcher,
            lambda did: desk,  # type: ignore[arg-type,return-value]  # what it uses of a Desk
            plan or OneBattery(),
            lambda date: DAY,
            lambda: DAY.start + 86_400_000,
        )
        task = asyncio.create_task(made.run())
        try:
            yield made
            assert not task.done(), task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "TICK_S", 0.01)
    monkeypatch.setattr(activation, "RETRY_S", 0.02, raising=False)


async def test_a_refused_order_is_said_once_and_the_next_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = ScriptedDesk({"a": [Refused("not_found", "there is no order a", "order_id")] * 9})
    with caplog.at_level(logging.WARNING):
        async with running(tmp_path, desk, "a", "b"):
            await until(lambda: "b.activated" in desk.sent)
            await asyncio.sleep(0.1)  # a few ticks more
    assert desk.sent == ["a.commanded", "b.commanded", "b.activated"]
    (said,) = caplog.records
    assert "there is no order a" in said.getMessage()


async def test_an_expired_record_is_made_again_under_another_id(tmp_path: Path) -> None:
    desk = ScriptedDesk({"a": [IntentExpired("too late"), IntentExpired("too late")]})
    async with running(tmp_path, desk, "a"):
        await until(lambda: "a.activated" in desk.sent)
    assert desk.sent == ["a.commanded", "a.commanded.2", "a.commanded.3", "a.activated"]


async def test_an_order_is_read_once_and_not_again_when_it_is_over(tmp_path: Path) -> None:
    desk = ScriptedDesk({})
    async with running(tmp_path, desk, "a", "b") as made:
        orders: Any = made._views
        orders.known[1].body["activations"] = [{"stage": "commanded"}, {"stage": "activated"}]  # type: ignore[index]
        await until(lambda: "a.activated" in desk.sent)
        orders.known.append(order("c"))
        made.news.heard([Event(3, 1, "t", 1, "congestion.ordered", {})])
        await until(lambda: "c.activated" in desk.sent)
        await until(lambda: not made._open)
    assert orders.read == ["a", "b", "c"]
    assert desk.sent == ["a.commanded", "a.activated", "c.commanded", "c.activated"]


async def test_no_orders_commands_wait_for_the_ledger_to_take_anothers_record(tmp_path: Path) -> None:
    class Away(ScriptedDesk):
        async def do(self, function: str, args: Mapping[str, Any], *, intent_id: str, correlation_id: str) -> None:
            self.sent.append(intent_id)
            await asyncio.Event().wait()

    desk = Away({})
    async with running(tmp_path, desk, "a", "b") as made:
        await until(lambda: bool(desk.sent))
        assert desk.sent == ["a.commanded"]
        assert [len(await made._dispatcher.commands(name)) for name in ("a", "b")] == [1, 1]


async def test_a_full_outbox_is_waited_for(tmp_path: Path) -> None:
    desk = ScriptedDesk({"a": [OutboxFull("full"), OutboxFull("full")]})
    async with running(tmp_path, desk, "a", "b"):
        await until(lambda: {"a.activated", "b.activated"} <= set(desk.sent))


async def test_what_was_planned_before_a_restart_stands_whichever_devices_are_left(tmp_path: Path) -> None:
    desk = ScriptedDesk({})
    async with running(tmp_path, desk, "a"):
        await until(lambda: "a.activated" in desk.sent)
    desk.sent.clear()
    async with running(tmp_path, desk, "a", "b", plan=NoBattery()):
        await until(lambda: "a.activated" in desk.sent)
    assert desk.sent == ["a.commanded", "a.activated"]
