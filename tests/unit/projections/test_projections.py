"""Projections from a scripted chain: exactly once, rebuilt to the same bytes, loud about what they do not know."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.contracts import Party

import flexrelay_contracts
from flexrelay.ingest import DeviceStatus, Registry
from flexrelay.ledger.port import Checkpoint, ContractEvent, LedgerUnavailable, TxEvents, Validation
from flexrelay.projections import PROJECTIONS, PROJECTORS, Event, ProjectionFailed, Projections, Revocation, Views
from flexrelay.store import Store, StoreUnavailable
from flexrelay_schemas.canonical import canonical

Posted = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass
class Chain:
    """Blocks of transactions of events; delivers the checkpoint's block again, and breaks where it is told to."""

    blocks: list[list[TxEvents]] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)
    org: str = "org1"
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, *transactions: Posted, valid: bool = True, at: int = 1000) -> int:
        number = len(self.blocks)
        block = []
        for index, events in enumerate(transactions):
            shown = tuple(ContractEvent(name, canonical({**payload, "v": 1})) for name, payload in events)
            validation = Validation.VALID if valid else Validation.MVCC_READ_CONFLICT
            last = index == len(transactions) - 1
            block.append(TxEvents(number, f"tx-{number}-{index}", validation, at, shown if valid else (), last))
        self.blocks.append(block)
        self._grown.set()
        return number

    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        number, sent = max(checkpoint.block, 0), 0
        while True:
            while number >= len(self.blocks):
                self._grown.clear()
                await self._grown.wait()
            for tx in self.blocks[number]:
                yield tx
                sent += 1
                if self.break_after and sent >= self.break_after[0]:
                    self.break_after.pop(0)
                    raise LedgerUnavailable("reset")
            number += 1


def posted(debit: str, credit: str, amount: int) -> tuple[str, Mapping[str, Any]]:
    line = {"debit": debit, "credit": credit, "micro_eur": amount, "reason": "energy", "ref": "o/1"}
    return "accounts.posted", {"product": "p", "lines": [line]}


def open_projections(chain: Any, store: Store, **options: Any) -> Projections:
    return Projections(chain, store, "org1", **options)


async def test_money_identities_documents(tmp_path: Path) -> None:
    chain = Chain()
    device = Party.new("device", "did:flexrelay:test:" + "z" * 47)
    identity = {"did": device.did, "kind": "device", "controller": "c", "version": 1, "key": "k1", "org": "dso"}
    chain.add(
        [("identity.registered", identity)], [posted("external", "actor:a", 10), posted("actor:a", "rounding", 3)]
    )
    chain.add([("congestion.ordered", {"order_id": "o", "auction": "a", "isps": [1]})])
    chain.add([("identity.suspended", {"did": device.did, "kind": "device", "reason": "r"})], [("new.kind", {"a": 1})])
    activation = {"order_id": "o", "stage": "commanded", "hash": "h", "market_ms": 1, "gateway": "g"}
    chain.add([("congestion.activation", activation)])
    last = chain.add([posted("external", "actor:a", 99)], valid=False)
    async with Store(tmp_path / "s.db", [PROJECTIONS]) as store:
        views = Views(store, "org1")
        async with open_projections(chain, store) as projections:
            await asyncio.wait_for(projections.reached(last), 60)
        assert await views.balances() == {"actor:a": 7, "external": -10, "rounding": 3}
        assert [p.micro_eur for p in await views.postings("o/1")] == [10, 3]
        (found,) = await views.identities("device")
        assert (found.did, found.key, found.status) == (device.did, "k1", "suspended")
        order = await views.document("order", "o")
        assert order is not None and order.status == "ordered" and order.first_tx == "tx-1-0"
        assert order.body["activations"] == [{"stage": "commanded", "hash": "h", "market_ms": 1, "gateway": "g"}]
        assert [e.name for e in await views.events("new.")] == ["new.kind"]
        assert await Views(store, "other").balances() == {}
        assert [e.sequence async for e in views.named("accounts.posted")] == [2, 3]
        assert [e.sequence async for e in views.named("accounts.posted", 2)] == [3]
        assert [e.name async for e in views.named("accounts.")] == []


async def test_documents_under_an_id(tmp_path: Path) -> None:
    chain = Chain()
    pairs = (("a", "1"), ("a", "2"), ("a.b", "1"), ("a0", "1"), ("a-", "1"), ("b", "1"))
    last = chain.add([("congestion.offered", {"auction": auction, "offer_id": offer}) for auction, offer in pairs])
    async with Store(tmp_path / "s.db", [PROJECTIONS]) as store, open_projections(chain, store) as projections:
        await asyncio.wait_for(projections.reached(last), 60)
        views = Views(store, "org1")
        assert [found.id for found in await views.under("offer", "a")] == ["a/1", "a/2"]
        assert await views.under("order", "a") == []


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    amounts=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=6),
    breaks=st.lists(st.integers(1, 6), max_size=4),
    stop_after=st.integers(0, 6),
)
def test_each_event_counts_once_however_it_is_delivered(
    amounts: list[list[int]], breaks: list[int], stop_after: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("p") / "s.db"

    async def scenario(monkey: pytest.MonkeyPatch) -> None:
        monkey.setattr("flexrelay.projections.projections.RETRY_S", 0.0)
        chain = Chain(break_after=list(breaks))
        for block in amounts[:stop_after]:
            chain.add(*([posted("external", "actor:a", amount)] for amount in block))
        async with Store(path, [PROJECTIONS]) as store:
            async with open_projections(chain, store) as projections:
                await asyncio.wait_for(projections.reached(len(chain.blocks) - 1), 60)
            for block in amounts[stop_after:]:
                chain.add(*([posted("external", "actor:a", amount)] for amount in block))
            async with open_projections(chain, store) as projections:
                await asyncio.wait_for(projections.reached(len(amounts) - 1), 60)
            total = sum(map(sum, amounts))
            assert await Views(store, "org1").balances() == {"actor:a": total, "external": -total}
            before = await projections.dump()
            await projections.rebuild()
            chain.break_after = [2]
            async with open_projections(chain, store) as again:
                await asyncio.wait_for(again.reached(len(amounts) - 1), 60)
            assert await again.dump() == before

    with pytest.MonkeyPatch.context() as monkey:
        asyncio.run(scenario(monkey))


async def test_a_full_disk_holds_projections_up_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pages(most: int) -> Callable[[sqlite3.Connection], Any]:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {most}").fetchone()

    monkeypatch.setattr("flexrelay.projections.projections.RETRY_S", 0.01)
    chain = Chain()
    async with Store(tmp_path / "s.db", [PROJECTIONS]) as store:

        async def make_room() -> None:
            while True:
                try:
                    await store.write(pages(1_000_000))
                except StoreUnavailable:  # it shared a commit with what found the disk full
                    continue
                return

        async with open_projections(chain, store) as projections:
            await store.write(pages(1))  # SQLite takes this as the present size
            last = [chain.add(*[[posted("external", f"actor:{n}-{m}", 1)] for m in range(20)]) for n in range(20)][-1]
            await asyncio.sleep(0.2)
            assert projections.block < last
            await make_room()
            await asyncio.wait_for(projections.reached(last), 60)
        assert (await Views(store, "org1").balances())["external"] == -400


async def test_an_event_in_an_unknown_form_stops_loudly_and_changes_nothing(tmp_path: Path) -> None:
    chain = Chain()
    chain.add([posted("external", "actor:a", 1)])
    chain.add([posted("external", "actor:a", 5)], [("accounts.posted", {"lines": [{"debit": "x"}], "product": ""})])
    async with Store(tmp_path / "s.db", [PROJECTIONS]) as store:
        with pytest.raises(ExceptionGroup) as raised:
            async with open_projections(chain, store):
                await asyncio.sleep(60)
        (error,) = raised.value.exceptions
        assert isinstance(error, ProjectionFailed) and "tx-1-1" in str(error)
        assert await Views(store, "org1").balances() == {"actor:a": 1, "external": -1}


async def test_revocation_reaches_the_registry_with_its_block_and_after_a_restart(tmp_path: Path) -> None:
    chain = Chain()
    device = Party.new("device", "did:flexrelay:test:" + "z" * 47)
    identity = {"did": device.did, "kind": "device", "controller": "c", "version": 1, "key": "k1", "org": "dso"}
    chain.add([("identity.registered", identity)])
    async with Store(tmp_path / "s.db", [PROJECTIONS]) as store:
        registry = Registry("test", "org1")
        revocation = Revocation(registry, clock=lambda: 1250)
        async with open_projections(chain, store, listeners=[revocation]) as projections:
            await asyncio.wait_for(projections.reached(0), 60)
            found = registry.device(device.did)
            assert found is not None and found.status is DeviceStatus.ACTIVE
            chain.add([("identity.deactivated", {"did": device.did, "kind": "device", "reason": ""})], at=1000)
            await asyncio.wait_for(projections.reached(1), 60)
            assert registry.device(device.did) is found and str(found.status.value) == "deactivated"
            assert (revocation.count, revocation.newest_lag_ms, revocation.greatest_lag_ms) == (1, 250, 250)
        fresh = Registry("test", "org1")
        assert await Revocation(fresh).load(Views(store, "org1")) == 2
        known = fresh.device(device.did)
        assert known is not None and known.status is DeviceStatus.DEACTIVATED


async def test_a_new_projector_is_one_entry(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(scope: Any, event: Event) -> None:
        seen.append(event.payload["n"])

    chain = Chain()
    chain.add([("mine.noted", {"n": 3})])
    async with Store(tmp_path / "s.db", [PROJECTIONS]) as store:
        projectors = (*PROJECTORS, {"mine.noted": note})
        async with open_projections(chain, store, projectors=projectors) as projections:
            await asyncio.wait_for(projections.reached(0), 60)
    assert seen == [3]


LOG_ONLY = {
    "network.bootstrapped",
    "gateway.granted",
    "gateway.withdrawn",
    "grant.accredited",
    "grant.accreditation_withdrawn",
    "masterdata.recorded",
}
"""Events that stand in the event log and in no other table."""


def test_every_event_of_the_contracts_is_projected_or_left_to_the_log_on_purpose() -> None:
    sources = Path(flexrelay_contracts.__file__).parent.rglob("*.py")
    announced = {name for path in sources for name in re.findall(r'announce\(\s*ctx,\s*"([a-z_.]+)"', path.read_text())}
    projected = {name for projector in PROJECTORS for name in projector}
    assert len(announced) > 30
    assert announced - projected - LOG_ONLY == set()
    assert projected - announced == set()
