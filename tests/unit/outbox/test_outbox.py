"""The outbox by itself: idempotent adding, joining a caller's transaction, bounds, first end counts."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.contracts import Party

from flexrelay.ledger.port import Checkpoint, Prepared, Validation
from flexrelay.outbox import (
    OUTBOX,
    BadIntent,
    CommittedIntent,
    ExpiredIntent,
    IntentClash,
    Options,
    Outbox,
    OutboxFull,
    RefusedIntent,
    State,
)
from flexrelay.store import Component, Migration, Store

EFFECTS = Component("effects", (Migration(1, "effects", ("CREATE TABLE effect (name TEXT) STRICT",)),))
ACTOR = Party.new()


def intent(name: str, **args: int) -> bytes:
    return ACTOR.intent("test.do", args, deadline=2_000_000_000_000, intent_id=name)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(tmp_path / "s.db", [OUTBOX, EFFECTS]) as opened:
        yield opened


@pytest.fixture
async def outbox(store: Store) -> Outbox:
    return Outbox(store, "org1", capacity=3)


async def test_the_same_intent_is_one_entry_and_other_bytes_clash(outbox: Outbox) -> None:
    signed = intent("i", a=1)
    assert await outbox.add(signed) == await outbox.add(signed)
    with pytest.raises(IntentClash, match="id of its own"):
        await outbox.add(intent("i", a=2))


async def test_tenants_do_not_see_each_other(store: Store, outbox: Outbox) -> None:
    other = Outbox(store, "org2")
    signed = intent("i")
    entry = await outbox.add(signed)
    assert await other.add(signed) != entry
    with pytest.raises(KeyError):
        await other.entry(entry)


async def test_what_is_no_intent_is_refused(outbox: Outbox) -> None:
    for data in (b"", b"{}", b"\xff", b'{"intent":{},"signature":"x"}'):
        with pytest.raises(BadIntent):
            await outbox.add(data)


async def test_a_full_outbox_says_so_until_something_ends(outbox: Outbox) -> None:
    entries = [await outbox.add(intent(f"i{n}")) for n in range(3)]
    with pytest.raises(OutboxFull):
        await outbox.add(intent("more"))
    await outbox.conclude(await outbox.entry(entries[0]), ExpiredIntent(""))
    assert await outbox.add(intent("more"))


async def test_effects_and_intent_stand_or_fall_together(store: Store, outbox: Outbox) -> None:
    def work(connection: sqlite3.Connection, *, fail: bool) -> None:
        connection.execute("INSERT INTO effect VALUES ('e')")
        outbox.add_in(connection, intent(f"fail-{fail}"), Options(correlation_id="c"))
        if fail:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await store.write(lambda connection: work(connection, fail=True))
    await store.write(lambda connection: work(connection, fail=False))
    count = await store.read(lambda connection: connection.execute("SELECT count(*) FROM effect").fetchone()[0])
    assert (count, [e.intent_id for e in await outbox.by_correlation("c")]) == (1, ["fail-False"])


async def test_the_first_end_counts_and_wakes_whoever_waits(outbox: Outbox) -> None:
    entry = await outbox.add(intent("i"), transient={"secret": b"\x00\xff"})
    assert (await outbox.entry(entry)).transient == {"secret": b"\x00\xff"}
    waiting = asyncio.create_task(outbox.wait(entry))
    await asyncio.sleep(0.01)
    loaded = await outbox.entry(entry)
    first = RefusedIntent("no", "because", "a")
    assert await outbox.conclude(loaded, first) == first
    assert await outbox.conclude(loaded, CommittedIntent("t", 1, {})) == first
    assert await waiting == first == await outbox.outcome(entry)
    assert (await outbox.entry(entry)).transient == {}
    await outbox.record_state(loaded, State.SUBMITTED, "t")
    assert [t.state for t in await outbox.transitions(entry)] == [State.PENDING, State.REFUSED]


async def test_attempts_and_their_validation_are_kept(outbox: Outbox) -> None:
    entry = await outbox.entry(await outbox.add(intent("i")))
    await outbox.record_prepared(entry, Prepared("t1", b"envelope", {"n": 1}))
    (attempt,) = await outbox.attempts(entry.id)
    assert (attempt.envelope, attempt.result, attempt.validation) == (b"envelope", {"n": 1}, None)
    await outbox.record_dead(entry, attempt, Validation.MVCC_READ_CONFLICT, 7, "conflict")
    (attempt,) = await outbox.attempts(entry.id)
    assert (attempt.validation, attempt.block) == (Validation.MVCC_READ_CONFLICT, 7)
    assert (await outbox.entry(entry.id)).state is State.CONFLICTED


async def test_the_transaction_that_counted_is_marked(outbox: Outbox) -> None:
    entry = await outbox.entry(await outbox.add(intent("i")))
    await outbox.record_prepared(entry, Prepared("t1", b"envelope", {"n": 1}))
    await outbox.conclude(entry, CommittedIntent("t1", 9, {"n": 1}))
    (attempt,) = await outbox.attempts(entry.id)
    assert (attempt.envelope, attempt.validation, attempt.block) == (b"", Validation.VALID, 9)
    assert await outbox.outcome(entry.id) == CommittedIntent("t1", 9, {"n": 1})


async def test_checkpoint_and_purge(outbox: Outbox) -> None:
    assert await outbox.checkpoint() == Checkpoint()
    await outbox.record_checkpoint(Checkpoint(4, "t"))
    assert await outbox.checkpoint() == Checkpoint(4, "t")
    entry = await outbox.entry(await outbox.add(intent("i")))
    await outbox.record_prepared(entry, Prepared("t1", b"e", {}))
    assert await outbox.purge(2**52) == 0
    await outbox.conclude(entry, ExpiredIntent(""))
    assert await outbox.purge(2**52) == 1
    assert await outbox.attempts(entry.id) == []
