"""Outbox, relay and projections on the real embedded ledger with the real contracts."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.chain import Chain, wall_ms
from support.contracts import Party
from support.relay_process import ACCOUNT

from flexrelay.ingest import DeviceStatus, Registry
from flexrelay.ledger.port import Call, Checkpoint, Validation
from flexrelay.outbox import OUTBOX, CommittedIntent, ExpiredIntent, Outbox, RefusedIntent
from flexrelay.projections import PROJECTIONS, Projections, Revocation, Views
from flexrelay.relay import Pace, Relay, RelayOptions
from flexrelay.store import Store
from flexrelay_schemas.intent import SignedIntent

TESTS = Path(__file__).parents[2]
COUNT = 60


async def test_many_intents_are_committed_once_each(tmp_path: Path) -> None:
    chain = Chain.at(tmp_path)
    async with chain.open() as ledger, Store(tmp_path / "store.db", [OUTBOX, PROJECTIONS]) as store:
        outbox = Outbox(store, ledger.org)
        async with Relay(ledger, outbox), Projections(ledger, store, ledger.org) as projections:
            entries = [await outbox.add(chain.fund("fees:x", n, f"f{n}")) for n in range(1, 41)]
            outcomes = [await asyncio.wait_for(outbox.wait(entry), 60) for entry in entries]
            blocks = [outcome.block for outcome in outcomes if isinstance(outcome, CommittedIntent)]
            assert len(blocks) == 40
            await asyncio.wait_for(projections.reached(max(blocks)), 60)
            views = Views(store, ledger.org)
            assert await views.balances() == {"external": -820, "fees:x": 820}
            answer = await ledger.evaluate("accounts.balance", {"account": "fees:x"})
            assert answer["micro_eur"] == 820
            kinds = {identity.kind for identity in await views.identities()}
            assert kinds == {"actor", "gateway"}


async def test_a_refusal_of_the_contract_arrives_whole(tmp_path: Path) -> None:
    chain = Chain.at(tmp_path)
    async with chain.open() as ledger, Store(tmp_path / "store.db", [OUTBOX]) as store:
        outbox = Outbox(store, ledger.org)
        async with Relay(ledger, outbox):
            entry = await outbox.add(chain.intent("accounts.withdraw", {"account": "fees:x", "micro_eur": 5}))
            outcome = await asyncio.wait_for(outbox.wait(entry), 60)
            assert isinstance(outcome, RefusedIntent)
            assert (outcome.code, outcome.field) == ("funds", "account")
            again = await outbox.add(chain.intent("accounts.fund", {"account": "fees:x"}))
            refused = await asyncio.wait_for(outbox.wait(again), 60)
            assert isinstance(refused, RefusedIntent) and refused.field == "micro_eur"


async def test_a_lost_envelope_is_voided_and_dies_when_it_comes_back(tmp_path: Path) -> None:
    """The envelope is prepared, kept and held back; after the deadline the void stands; then it is let go."""
    chain, ahead_ms = Chain.at(tmp_path), 0

    def clock() -> int:
        return wall_ms() + ahead_ms

    async with chain.open(clock=clock) as ledger, Store(tmp_path / "store.db", [OUTBOX]) as store:
        outbox = Outbox(store, ledger.org, clock=clock)
        signed = chain.fund("fees:x", 7, "held", life_ms=100_000)
        entry = await outbox.entry(await outbox.add(signed))
        held = await ledger.prepare(Call(signed))
        await outbox.record_prepared(entry, held)
        ahead_ms = 100_100
        options = RelayOptions(pace=Pace(void_margin_ms=10))
        async with Relay(ledger, outbox, sign=chain.sign_void, options=options):
            outcome = await asyncio.wait_for(outbox.wait(entry.id), 60)
        assert isinstance(outcome, ExpiredIntent)
        await ledger.submit(held.envelope)
        async for tx in ledger.events(Checkpoint()):
            if tx.tx_id == held.tx_id:
                assert tx.validation is Validation.MVCC_READ_CONFLICT
                break
        intent = SignedIntent.model_validate_json(signed).intent
        status = await ledger.evaluate("intents.status", {"actor": intent.actor, "intent_id": "held"})
        assert status == {"status": "void", "tx_id": outcome.tx_id}
        assert (await ledger.evaluate("accounts.balances", {}))["sum_micro_eur"] == 0


async def test_projections_rebuild_to_the_same_bytes(tmp_path: Path) -> None:
    chain = Chain.at(tmp_path)
    async with chain.open() as ledger, Store(tmp_path / "store.db", [OUTBOX, PROJECTIONS]) as store:
        outbox = Outbox(store, ledger.org)
        revocation = Revocation()
        projections = Projections(ledger, store, ledger.org, listeners=[revocation])
        async with Relay(ledger, outbox), projections:
            device = chain.gateway  # any party will do for the fund; identities come from the bootstrap
            for n in range(1, 6):
                last = await outbox.wait(await outbox.add(chain.fund(f"fees:{device.did[-5:]}{n}", n, f"f{n}")))
            assert isinstance(last, CommittedIntent)
            await asyncio.wait_for(projections.reached(last.block), 60)
        before = await projections.dump()
        await projections.rebuild()
        assert await projections.dump() != before
        again = Projections(ledger, store, ledger.org)
        async with again:
            await asyncio.wait_for(again.reached(last.block), 60)
        assert await again.dump() == before


async def test_a_revoked_device_is_refused_once_its_block_is_there(tmp_path: Path) -> None:
    chain = Chain.at(tmp_path)
    device = Party.new("device", chain.operator.did)
    registry = Registry("test", "dso")
    revocation = Revocation(registry)
    async with chain.open() as ledger, Store(tmp_path / "store.db", [OUTBOX, PROJECTIONS]) as store:
        outbox = Outbox(store, ledger.org)
        projections = Projections(ledger, store, ledger.org, listeners=[revocation])

        async def do(function: str, args: dict[str, object]) -> None:
            outcome = await asyncio.wait_for(outbox.wait(await outbox.add(chain.intent(function, args))), 60)
            assert isinstance(outcome, CommittedIntent)
            await asyncio.wait_for(projections.reached(outcome.block), 60)

        async with Relay(ledger, outbox), projections:
            await do("identity.register_device", device.proven())
            known = registry.device(device.did)
            assert known is not None and known.status is DeviceStatus.ACTIVE
            await do("identity.deactivate", {"did": device.did, "reason": "stolen"})
            assert known.status is DeviceStatus.DEACTIVATED
            assert revocation.count == 1 and revocation.greatest_lag_ms == revocation.newest_lag_ms < 60_000


async def test_what_another_outbox_object_carries_is_seen_by_whoever_waits(tmp_path: Path) -> None:
    chain = Chain.at(tmp_path)
    path = tmp_path / "store.db"
    async with chain.open() as ledger, Store(path, [OUTBOX]) as store, Store(path, [OUTBOX]) as second:
        waiting = Outbox(second, ledger.org)
        entry = await waiting.add(chain.fund("fees:x", 1, "f"))
        async with Relay(ledger, Outbox(store, ledger.org)):
            assert isinstance(await asyncio.wait_for(waiting.wait(entry), 60), CommittedIntent)


def run_and_kill(folder: Path, delay_s: float) -> list[str]:
    """What the process printed before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.relay_process", str(folder), str(COUNT)],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().strip()]
    if lines[0] == "ready":
        time.sleep(delay_s)
    process.kill()
    rest, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    return lines + rest.splitlines()


async def check_after_kills(folder: Path, told: set[str]) -> None:
    """A last, quiet run: everything committed once, and nothing that a killed process had told is missing."""
    chain = Chain.at(folder)
    async with chain.open() as ledger, Store(folder / "store.db", [OUTBOX, PROJECTIONS]) as store:
        outbox = Outbox(store, ledger.org)
        async with Relay(ledger, outbox, sign=chain.sign_void), Projections(ledger, store, ledger.org) as projections:
            last = -1
            for path in sorted((folder / "intents").iterdir()):
                outcome = await asyncio.wait_for(outbox.wait(await outbox.add(path.read_bytes())), 60)
                assert isinstance(outcome, CommittedIntent), (path.name, outcome)
                last = max(last, outcome.block)
                known = [line for line in told if line.startswith(f"committed {path.name} ")]
                assert known in ([], [f"committed {path.name} {outcome.tx_id}"])
            await asyncio.wait_for(projections.reached(last), 60)
            assert await Views(store, ledger.org).balances() == {"external": -COUNT, ACCOUNT: COUNT}
            assert (await ledger.evaluate("accounts.balance", {"account": ACCOUNT}))["micro_eur"] == COUNT
        before = await projections.dump()
        await projections.rebuild()
        async with projections:
            await asyncio.wait_for(projections.reached(last), 60)
        assert await projections.dump() == before


async def kills(folder: Path, times: int, seed: int) -> None:
    chain = Chain.at(folder)
    (folder / "intents").mkdir()
    for n in range(COUNT):
        (folder / "intents" / f"pay-{n:03}").write_bytes(chain.fund(ACCOUNT, 1, f"pay-{n:03}"))
    chance = random.Random(seed)
    told: set[str] = set()
    for _ in range(times):
        told |= set(run_and_kill(folder, chance.uniform(0, 0.15)))
    await check_after_kills(folder, told)


async def test_kill_9_at_random_points_doubles_and_loses_nothing(tmp_path: Path) -> None:
    await kills(tmp_path, times=4, seed=random.randrange(2**32))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
async def test_kill_9_many_times(tmp_path: Path, seed: int) -> None:
    await kills(tmp_path, times=10, seed=seed)
