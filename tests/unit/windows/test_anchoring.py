"""Anchors on their way to the ledger: none is lost because the ledger was away for longer than an intent lives."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.chain import Signer
from support.contracts import NETWORK, Party
from support.readings import NOW, frame_of, ingest_path, signed_payload

from flexrelay.ingest import NativeCodec
from flexrelay.journal.consumer import catch_up
from flexrelay.outbox import OUTBOX, CommittedIntent, ExpiredIntent, Outbox, OutboxFull, RefusedIntent
from flexrelay.store import Store
from flexrelay.windows import WINDOWS, Anchoring, Calendar, Vault, Windows
from flexrelay_schemas.intent import SignedIntent
from flexrelay_schemas.intervals import CalendarDay

ISP = 900_000
DAY = CalendarDay(date="2023-11-14", start=NOW - 40 * ISP, isps=96, isp_seconds=900, working=True)


@dataclass
class Gateway:
    anchoring: Anchoring
    outbox: Outbox


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """One closed interval of one meter, and room for two open intents."""
    meter, itself = Party.new("device"), Party.new("gateway")
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(ingest_path(tmp_path, meter))
        store = await stack.enter_async_context(Store(tmp_path / "store.db", [WINDOWS, OUTBOX]))
        vault = stack.enter_context(Vault(tmp_path / "vault.db"))
        windows = await Windows.open(store, vault, Calendar([DAY]), path.registry.counts, 0)
        payload = signed_payload(meter, DAY.bounds(5)[1], {"import_j": 1, "export_j": 0}, 1)
        await path.ingest.put([frame_of(meter.did, payload)], NativeCodec())
        await catch_up(path.journal, windows)
        outbox = Outbox(store, "a", capacity=2)
        signer = Signer(itself)
        yield Gateway(Anchoring(windows, outbox, signer, NETWORK, lambda: NOW, lambda: NOW, ISP), outbox)


async def test_an_expired_anchor_is_handed_over_again_until_the_ledger_has_it(gateway: Gateway) -> None:
    (first,) = await gateway.anchoring.step()
    assert await gateway.anchoring.step() == []  # under way
    earlier = await gateway.outbox.entry(first)
    for turn in (2, 3):
        await gateway.outbox.conclude(earlier, ExpiredIntent(""))
        (again,) = await gateway.anchoring.step()
        later = await gateway.outbox.entry(again)
        assert later.intent_id == f"{later.correlation_id}.{turn}" and later.correlation_id == earlier.correlation_id
        args = [SignedIntent.model_validate_json(each.intent).intent.args for each in (earlier, later)]
        assert args[0] == args[1]
        assert await gateway.anchoring.step() == []
        earlier = later
    await gateway.outbox.conclude(earlier, CommittedIntent("t", 1, {}))
    assert await gateway.anchoring.step() == []


async def test_an_outage_beyond_the_outboxs_retention_gives_no_turn_twice(gateway: Gateway) -> None:
    await gateway.anchoring.step()
    (anchor,) = await gateway.outbox.open_entries()
    for turn in (2, 3, 4, 5):
        (earlier,) = await gateway.outbox.open_entries()
        gateway.outbox.clock = lambda turn=turn: turn  # type: ignore[misc]  # this turn's
        await gateway.outbox.conclude(earlier, ExpiredIntent(""))
        assert await gateway.outbox.purge(turn) == (turn > 2), "all but the newest"
        await gateway.anchoring.step()
        (later,) = await gateway.outbox.open_entries()
        assert later.intent_id == f"{anchor.intent_id}.{turn}"


async def test_a_refused_anchor_is_not_repeated(gateway: Gateway) -> None:
    (entry,) = await gateway.anchoring.step()
    await gateway.outbox.conclude(await gateway.outbox.entry(entry), RefusedIntent("not_authorized", "no grant", ""))
    assert await gateway.anchoring.step() == []


async def test_a_full_outbox_takes_it_later(gateway: Gateway) -> None:
    (entry,) = await gateway.anchoring.step()
    await gateway.outbox.conclude(await gateway.outbox.entry(entry), ExpiredIntent(""))
    others = [Party.new().intent("test.do", {}, deadline=NOW + ISP) for _ in range(2)]
    filled = [await gateway.outbox.add(each) for each in others]
    with pytest.raises(OutboxFull):
        await gateway.anchoring.step()
    await gateway.outbox.conclude(await gateway.outbox.entry(filled[0]), ExpiredIntent(""))
    assert len(await gateway.anchoring.step()) == 1
