"""The relay against a ledger that drops, delays, doubles, conflicts and refuses."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.contracts import Party
from support.hostile_ledger import HostileLedger

from flexrelay.ledger.port import Call, Committed, NeedsAttention, NotFound, TxStatus, Validation
from flexrelay.outbox import OUTBOX, CommittedIntent, ExpiredIntent, Outbox, OutboxId, RefusedIntent, State
from flexrelay.relay import Pace, Relay, RelayOptions
from flexrelay.store import Store
from flexrelay_sdk.testkit import until

FAST = RelayOptions(
    poll_s=0.02, drain_s=0.0, pace=Pace(recheck=0.02, pause=0.002, longest=0.05, void_margin_ms=0, rejections=3)
)


@dataclass
class Gateway:
    ledger: HostileLedger
    outbox: Outbox
    actor: Party
    relay: Relay

    def intent(self, name: str = "", *, life_ms: int = 60_000) -> bytes:
        return self.actor.intent("test.do", {}, deadline=self.ledger.now + life_ms, intent_id=name)


def signer(party: Party) -> Any:
    async def sign(function: str, args: Mapping[str, Any], deadline: int) -> bytes:
        return party.intent(function, args, deadline=deadline)

    return sign


@asynccontextmanager
async def running(path: Path, ledger: HostileLedger, options: RelayOptions = FAST) -> AsyncIterator[Gateway]:
    async with Store(path / "store.db", [OUTBOX]) as store:
        outbox = Outbox(store, "org1", clock=lambda: ledger.now)
        cutting = asyncio.create_task(ledger.run())
        try:
            relay = Relay(ledger, outbox, sign=signer(Party.new("gateway")), options=options)
            async with relay:
                yield Gateway(ledger, outbox, Party.new(), relay)
        finally:
            cutting.cancel()


async def ended(gateway: Gateway, entry: OutboxId) -> Any:
    async with asyncio.timeout(60):
        return await gateway.outbox.wait(entry)


async def test_a_quiet_day(tmp_path: Path) -> None:
    ledger = HostileLedger()
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent(), correlation_id="order-1")
        outcome = await ended(gateway, entry)
        assert isinstance(outcome, CommittedIntent)
        assert outcome.result == {"tx": outcome.tx_id}
        states = [t.state for t in await gateway.outbox.transitions(entry)]
        assert states == [State.PENDING, State.PREPARED, State.SUBMITTED, State.COMMITTED]


@pytest.mark.parametrize("fault", ["drop", "lost", "ordered_unknown", "unavailable", "double", "hold", "invalid"])
async def test_one_commit_whatever_submit_does(tmp_path: Path, fault: str) -> None:
    ledger = HostileLedger()
    async with running(tmp_path, ledger) as gateway:
        ledger.submit_script.append(fault)
        entry = await gateway.outbox.add(gateway.intent("i"))
        outcome = await ended(gateway, entry)
        ledger.release()
        await ledger.cut()
        assert isinstance(outcome, CommittedIntent)
        assert ledger.valid((gateway.actor.did, "i")) == [outcome.tx_id]
        assert not ledger.violations


async def test_a_duplicate_is_no_failure(tmp_path: Path) -> None:
    """The status is asked before the block and the envelope goes again after it: the copy comes back as duplicate."""
    ledger = HostileLedger()
    async with Store(tmp_path / "store.db", [OUTBOX]) as store:
        outbox = Outbox(store, "org1", clock=lambda: ledger.now)
        actor = Party.new()
        ledger.submit_script.append("ordered_unknown")
        ledger.status_script.append("cut_after")
        entry = await outbox.add(actor.intent("test.do", {}, deadline=ledger.now + 60_000, intent_id="i"))
        patient = RelayOptions(poll_s=0.02, drain_s=0.0, pace=Pace(recheck=5, pause=0.001))
        async with Relay(ledger, outbox, options=patient):
            await until(lambda: 2 in ledger.submissions.values())
            cutting = asyncio.create_task(ledger.run())
            async with asyncio.timeout(60):
                outcome = await outbox.wait(entry)
            cutting.cancel()
        assert isinstance(outcome, CommittedIntent)
        found = [validation for block in ledger.blocks for _, validation in block]
        assert found == [Validation.VALID, Validation.DUPLICATE_TXID]


async def test_conflicts_are_tried_again_in_new_transactions(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.prepare_script.extend(["conflict"] * 3)
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i"))
        assert isinstance(await ended(gateway, entry), CommittedIntent)
        assert len(await gateway.outbox.attempts(entry)) == 4


async def test_a_refusal_is_final_and_complete(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.prepare_script.append("refuse")
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i"))
        assert await ended(gateway, entry) == RefusedIntent("no", "because", "args.x")
        assert ledger.blocks == []


async def test_an_envelope_rejected_for_ever_ends_refused(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.submit_script.extend(["reject"] * 9)
    async with running(tmp_path, ledger) as gateway:
        outcome = await ended(gateway, await gateway.outbox.add(gateway.intent("i")))
        assert isinstance(outcome, RefusedIntent) and outcome.code == "rejected"
        assert len(ledger.submissions) == 3


async def test_an_intent_that_another_gateway_carried_is_committed(tmp_path: Path) -> None:
    ledger = HostileLedger()
    async with running(tmp_path, ledger) as gateway:
        ledger.markers[gateway.actor.did, "i"] = ("used", "f" * 64)
        outcome = await ended(gateway, await gateway.outbox.add(gateway.intent("i")))
        assert outcome == CommittedIntent("f" * 64, -1, {})


async def test_past_the_deadline_without_an_envelope_needs_no_void(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.down = True
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i", life_ms=1000))
        await asyncio.sleep(0.05)
        ledger.now += 2000
        ledger.down = False
        assert await ended(gateway, entry) == ExpiredIntent("")
        assert ledger.blocks == []


async def test_expired_is_said_only_after_the_void_stands(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.submit_script.extend(["hold"] + ["unavailable"] * 5)
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i", life_ms=1000))
        await until(lambda: bool(ledger.held))
        ledger.now += 2000
        outcome = await ended(gateway, entry)
        assert isinstance(outcome, ExpiredIntent)
        assert ledger.markers[gateway.actor.did, "i"] == ("void", outcome.tx_id)
        ledger.release()
        await ledger.cut()
        assert ledger.valid((gateway.actor.did, "i")) == []


async def test_the_held_envelope_that_wins_the_race_is_committed(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.submit_script.extend(["hold"] + ["hold"] * 3)
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i", life_ms=1000))
        await until(lambda: bool(ledger.held))
        ledger.now += 2000
        ledger.release()
        outcome = await ended(gateway, entry)
        valid = ledger.valid((gateway.actor.did, "i"))
        assert valid == ([outcome.tx_id] if isinstance(outcome, CommittedIntent) else [])


@pytest.mark.parametrize("comes_back", [True, False])
async def test_refused_is_no_end_while_an_older_envelope_may_commit(tmp_path: Path, comes_back: bool) -> None:
    """Held back, then rejected as too old; the next transaction is refused. Only then does the first one turn up."""
    ledger = HostileLedger()
    ledger.submit_script.extend(["hold", "reject"])
    ledger.prepare_script.extend(["ok", *["refuse"] * 10_000])
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i", life_ms=1000))
        await until(lambda: bool(ledger.held) and len(ledger.prepare_script) < 9_990)
        assert await gateway.outbox.outcome(entry) is None
        if comes_back:
            ledger.release()
        else:
            ledger.now += 2000
            ledger.prepare_script.clear()
        outcome = await ended(gateway, entry)
        ledger.release()
        await ledger.cut()
        valid = ledger.valid((gateway.actor.did, "i"))
        if comes_back:
            assert isinstance(outcome, CommittedIntent) and valid == [outcome.tx_id]
        else:
            assert outcome == RefusedIntent("no", "because", "args.x") and valid == []


async def test_one_key_is_carried_in_order_and_others_side_by_side(tmp_path: Path) -> None:
    ledger = HostileLedger()
    async with running(tmp_path, ledger) as gateway:
        ledger.down = True
        lane = [await gateway.outbox.add(gateway.intent(f"a{n}"), ordering_key="a") for n in range(5)]
        free = [await gateway.outbox.add(gateway.intent(f"b{n}")) for n in range(5)]
        ledger.submit_script.extend(["drop", "lost", "ok", "double"])
        ledger.down = False
        for entry in [*lane, *free]:
            assert isinstance(await ended(gateway, entry), CommittedIntent)
        mine = [name for name in ledger.prepared_order if name.startswith("a")]
        assert mine == [f"a{n}" for n in range(5)]


async def test_the_nearest_gate_goes_first(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.down = True
    one = RelayOptions(in_flight=1, poll_s=0.02, drain_s=0.0, pace=FAST.pace)
    async with running(tmp_path, ledger, one) as gateway:
        entries = [await gateway.outbox.add(gateway.intent("blocker"))]
        await until(lambda: gateway.relay.in_flight == 1)
        entries.append(await gateway.outbox.add(gateway.intent("none")))
        entries.append(await gateway.outbox.add(gateway.intent("late"), gate=ledger.now + 9_000))
        entries.append(await gateway.outbox.add(gateway.intent("early"), gate=ledger.now + 1_000))
        await until(lambda: gateway.relay.waiting == 3)
        ledger.down = False
        for entry in entries:
            await ended(gateway, entry)
        assert ledger.prepared_order == ["blocker", "early", "late", "none"]


async def test_flight_is_bounded(tmp_path: Path) -> None:
    ledger = HostileLedger()
    four = RelayOptions(in_flight=4, poll_s=0.02, drain_s=0.0, pace=FAST.pace)
    async with running(tmp_path, ledger, four) as gateway:
        entries = [await gateway.outbox.add(gateway.intent(f"i{n}")) for n in range(30)]
        for entry in entries:
            await ended(gateway, entry)
        assert ledger.most_in_flight <= 4


async def test_a_broken_event_stream_is_opened_again(tmp_path: Path) -> None:
    ledger = HostileLedger()
    async with running(tmp_path, ledger) as gateway:
        ledger.break_stream = True
        await ledger.cut()
        for n in range(3):
            entry = await gateway.outbox.add(gateway.intent(f"i{n}"))
            assert isinstance(await ended(gateway, entry), CommittedIntent)


@pytest.mark.parametrize("fault", ["drop", "lost", "ordered_unknown", "hold"])
async def test_a_restart_asks_before_it_sends_again(tmp_path: Path, fault: str) -> None:
    ledger = HostileLedger()
    slow = RelayOptions(poll_s=0.02, drain_s=0.0, pace=Pace(recheck=30, pause=30, longest=30))
    async with running(tmp_path, ledger, slow) as gateway:
        ledger.submit_script.append(fault)
        intent = gateway.intent("i")
        actor = gateway.actor
        entry = await gateway.outbox.add(intent)
        await asyncio.sleep(0.05)
        assert await gateway.outbox.outcome(entry) is None
    async with running(tmp_path, ledger) as gateway:
        assert await gateway.outbox.add(intent) == entry
        outcome = await ended(gateway, entry)
        assert isinstance(outcome, CommittedIntent)
        assert ledger.valid((actor.did, "i")) == [outcome.tx_id]
        assert not ledger.violations


async def test_an_error_of_the_body_goes_on_as_it_is(tmp_path: Path) -> None:
    ledger = HostileLedger()
    ledger.down = True
    with pytest.raises(KeyError):
        async with running(tmp_path, ledger) as gateway:
            await gateway.outbox.add(gateway.intent("i"))
            await asyncio.sleep(0.01)
            raise KeyError("mine")


async def test_a_cancelled_body_stops_the_relay(tmp_path: Path) -> None:
    ledger = HostileLedger()

    async def body() -> None:
        async with running(tmp_path, ledger) as gateway:
            await gateway.outbox.add(gateway.intent("i"))
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)


class Questioned(HostileLedger):
    """Nobody tells it how anything ended."""

    async def status(self, tx_id: str) -> TxStatus:
        raise NeedsAttention("somebody has to look", tx_id)


async def test_an_envelope_that_exists_is_never_forgotten(tmp_path: Path) -> None:
    """What is recorded while somebody has to look says that it exists: the next start asks for it by that."""
    ledger = Questioned()
    ledger.submit_script.append("unavailable")
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("i"))
        async with asyncio.timeout(60):
            while not (await gateway.outbox.transitions(entry))[-1].detail.startswith("ledger: "):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        found = await gateway.outbox.entry(entry)
        (attempt,) = await gateway.outbox.attempts(entry)
        assert (found.state, found.tx_id) == (State.PREPARED, attempt.tx_id)


class Late(HostileLedger):
    """Its peers execute on blocks that the followed one does not have so far."""

    unseen = 3

    async def status(self, tx_id: str) -> TxStatus:
        status = await super().status(tx_id)
        if isinstance(status, Committed) and self.unseen:
            self.unseen -= 1
            return NotFound(tx_id)
        return status


async def test_a_commit_that_only_the_marker_tells_has_its_block(tmp_path: Path) -> None:
    ledger = Late()
    patient = RelayOptions(poll_s=0.02, drain_s=0.0, pace=Pace(recheck=0.02, pause=0.002, longest=60))
    async with running(tmp_path, ledger, patient) as gateway:
        intent = gateway.intent("elsewhere")
        elsewhere = await ledger.prepare(Call(intent))
        await ledger.submit(elsewhere.envelope)
        async with asyncio.timeout(60):
            while not ledger.blocks:  # noqa: ASYNC110 (blocks are cut in the background)
                await asyncio.sleep(0.001)
        outcome = await ended(gateway, await gateway.outbox.add(intent))
        assert outcome == CommittedIntent(elsewhere.tx_id, 0, {})
        assert ledger.unseen == 0
