"""The relay on Fabric, one promise at a time: an envelope that was lost, one that comes back, organisations at odds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.fabric_faults.another import REFUSED_HERE
from integration.fabric_faults.rig import PATIENCE_S, Rig
from support.chance import told_seed
from support.fabric_load import STORE

from flexrelay.ledger.fabric import FabricLedger
from flexrelay.ledger.port import Call, Checkpoint, LedgerError, Validation
from flexrelay.outbox import OUTBOX, CommittedIntent, ExpiredIntent, Outbox, RefusedIntent
from flexrelay.relay import Pace, Relay, RelayOptions
from flexrelay.store import Store
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.intent import SignedIntent

pytestmark = pytest.mark.timeout(1800)


@asynccontextmanager
async def outbox_of(rig: Rig) -> AsyncIterator[tuple[FabricLedger, Outbox]]:
    async with rig.chain.connect() as ledger, Store(rig.chain.folder / STORE, [OUTBOX]) as store:
        yield ledger, Outbox(store, ledger.org)


async def test_a_lost_envelope_is_voided_and_dies_when_it_comes_back(single: Rig) -> None:
    """Endorsed, kept and held back; after the deadline the void stands; then it is let go."""
    seed = told_seed()
    async with outbox_of(single) as (ledger, outbox):
        for life_ms in (3_000, 20_000, 60_000):  # a busy machine may take longer than the first
            name = f"held-{seed}-{life_ms}"
            signed = single.chain.fund("fees:held", 7, name, life_ms=life_ms)
            try:
                held = await ledger.prepare(Call(signed))
                break
            except (Refused, LedgerError) as error:
                failed = error
        else:
            raise failed
        entry = await outbox.entry(await outbox.add(signed))
        await outbox.record_prepared(entry, held)
        await asyncio.sleep(life_ms / 1000)
        began = Checkpoint(await ledger.height() - 1)
        options = RelayOptions(pace=Pace(void_margin_ms=10))
        async with Relay(ledger, outbox, sign=single.chain.sign_void, options=options):
            outcome = await asyncio.wait_for(outbox.wait(entry.id), PATIENCE_S)
        assert isinstance(outcome, ExpiredIntent)
        await ledger.submit(held.envelope)
        async with asyncio.timeout(PATIENCE_S):
            async for tx in ledger.events(began):
                if tx.tx_id == held.tx_id:
                    assert tx.validation is Validation.MVCC_READ_CONFLICT
                    break
        intent = SignedIntent.model_validate_json(signed).intent
        status = await ledger.evaluate("intents.status", {"actor": intent.actor, "intent_id": name})
        assert status == {"status": "void", "tx_id": outcome.tx_id}
    await single.audited("an envelope that came back")


async def test_an_envelope_that_was_submitted_and_not_noted_is_asked_for(single: Rig) -> None:
    """The process died between the ledger's yes and its own note: twice submitted, once applied."""
    name = f"twice-{told_seed()}"
    async with outbox_of(single) as (ledger, outbox):
        entry = await outbox.entry(await outbox.add(single.chain.fund("fees:twice", 7, name)))
        sent = await ledger.prepare(Call(entry.intent))
        await outbox.record_prepared(entry, sent)
        await ledger.submit(sent.envelope)
        await ledger.submit(sent.envelope)
    async with outbox_of(single) as (ledger, outbox), Relay(ledger, outbox, sign=single.chain.sign_void):
        outcome = await asyncio.wait_for(outbox.wait(entry.id), PATIENCE_S)
        assert isinstance(outcome, CommittedIntent)
        assert outcome.tx_id == sent.tx_id
        assert len(await outbox.attempts(entry.id)) == 1
    await single.audited("an envelope that was submitted twice")


async def test_a_refusal_arrives_whole(single: Rig) -> None:
    name = f"refused-{told_seed()}"
    async with outbox_of(single) as (ledger, outbox), Relay(ledger, outbox, sign=single.chain.sign_void):
        intent = single.chain.intent("accounts.withdraw", {"account": "fees:nobody", "micro_eur": 5}, name=name)
        outcome = await asyncio.wait_for(outbox.wait(await outbox.add(intent)), PATIENCE_S)
        assert isinstance(outcome, RefusedIntent)
        assert (outcome.code, outcome.field) == ("funds", "account")


async def test_organisations_at_odds_are_alarmed_and_the_intent_goes_on_when_they_agree(single: Rig) -> None:
    """Another contract at one organisation whose endorsement was asked for: both results in the alarm."""
    name = f"odds-{told_seed()}"
    async with outbox_of(single) as (ledger, outbox), Relay(ledger, outbox, sign=single.chain.sign_void) as relay:
        async with another_contract(single, ledger):
            entry = await outbox.add(single.chain.fund("fees:odds", 7, name), endorsing_orgs=("dso", "agga"))
            async with asyncio.timeout(PATIENCE_S):
                while not relay.alarms.standing:  # noqa: ASYNC110 (alarms tell nobody)
                    await asyncio.sleep(0.1)
            (alarm,) = relay.alarms.standing
            assert (alarm.intent_id, alarm.kind) == (name, "endorsement_mismatch")
            assert '"micro_eur":7' in alarm.message and '"micro_eur":8' in alarm.message
            assert "dso: result" in alarm.message and "agga: result" in alarm.message
        outcome = await asyncio.wait_for(outbox.wait(entry), PATIENCE_S)
        assert isinstance(outcome, CommittedIntent)
        assert relay.alarms.standing == []
    await single.audited("organisations at odds")


async def test_what_only_another_organisation_refuses_is_not_refused(single: Rig) -> None:
    """That peer may be a block behind, or run another version: the intent waits until they agree."""
    name = f"alone-{told_seed()}"
    async with outbox_of(single) as (ledger, outbox), Relay(ledger, outbox, sign=single.chain.sign_void) as relay:
        async with another_contract(single, ledger):
            entry = await outbox.add(single.chain.fund(REFUSED_HERE, 7, name), endorsing_orgs=("dso", "agga"))
            async with asyncio.timeout(PATIENCE_S):
                while relay.alarms.counts["endorsement_mismatch"] < 3:  # noqa: ASYNC110 (alarms tell nobody)
                    await asyncio.sleep(0.1)
            assert await outbox.outcome(entry) is None
            told = [step.detail for step in await outbox.transitions(entry) if step.detail]
            assert told and "not with this version" in told[0] and "dso: result" in told[0]
        assert isinstance(await asyncio.wait_for(outbox.wait(entry), PATIENCE_S), CommittedIntent)
    await single.audited("one organisation refused")


@asynccontextmanager
async def another_contract(rig: Rig, ledger: FabricLedger) -> AsyncIterator[None]:
    """Meanwhile one organisation runs another contract."""
    name = "flexrelay_1.agga"
    await asyncio.to_thread(rig.native.processes.stop, [name])
    process = await asyncio.to_thread(started, rig.native.folder.contracts / f"{name}.toml")
    try:
        await answering(ledger, rig)
        yield
    finally:
        process.kill()
        process.wait()
        await rig.start(name)
    await answering(ledger, rig)


def started(config: Path) -> subprocess.Popen[bytes]:
    """The organisation's chaincode process with the other contract."""
    changed = config.with_name("another.toml")
    changed.write_text(config.read_text().replace("fabric_faults.contract", "fabric_faults.another"))
    environment = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    code = (
        f"from support.guardian import end_with; end_with({os.getpid()});"
        "import runpy; runpy.run_module('flexrelay_chaincode', run_name='__main__')"
    )
    return subprocess.Popen([sys.executable, "-c", code, "--config", str(changed)], env=environment)


async def answering(ledger: FabricLedger, rig: Rig) -> None:
    """Until the organisation's peer executes again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await ledger.prepare(Call(rig.chain.fund("fees:probe", 1, ""), endorsing_orgs=("agga",)))
                return
            except LedgerError:
                await asyncio.sleep(0.2)
