"""The data folder afterwards: opened again it goes on with what is there; projections are rebuilt to the same bytes."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from acceptance.conftest import ORGS, Run
from acceptance.independent.blocks import read_chain
from acceptance.independent.money import posted

from flexrelay.app import Level, open_site
from flexrelay.config import load
from flexrelay.projections import PROJECTIONS, Projections
from flexrelay.store import Store

pytestmark = pytest.mark.timeout(1800)


async def test_accounts_journals_and_projections_are_as_they_were_left(run: Run, copy: Path) -> None:
    async with open_site(copy, load(copy), Level.READING) as site:
        assert sorted(site.gateways) == sorted(ORGS)
        for org, gateway in site.gateways.items():
            assert gateway.journal.end == len(run.holders[org].frames)
            assert await gateway.journal.verify() == gateway.journal.end
            assert gateway.projections.block == run.chain.height - 1
            balances = await gateway.views.balances()
            assert {account: found for account, found in balances.items() if found} == run.report["accounts"]
            balances = await gateway.ledger.evaluate("accounts.balances", {})
            assert {item["account"]: item["micro_eur"] for item in balances["accounts"]} == run.report["accounts"]
            report = await gateway.audit.run(lambda done, total: None)
            assert report.ok, report.problems
            assert report.entries == gateway.journal.end


async def test_projections_rebuild_from_zero_to_the_same_bytes(run: Run, copy: Path) -> None:
    before = await _dumps(copy)
    assert all(len(dump) > 100_000 for dump in before.values())
    for org in ORGS:
        async with Store(copy / org / "store.db", (PROJECTIONS,)) as store:
            await Projections(_NoLedger(), store, org).rebuild()
    assert await _dumps(copy) == before


async def _dumps(folder: Path) -> dict[str, bytes]:
    async with open_site(folder, load(folder), Level.READING) as site:
        return {org: await gateway.projections.dump() for org, gateway in site.gateways.items()}


class _NoLedger:
    """Emptying tables asks no ledger."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"rebuild asked the ledger for {name}")


def test_run_serves_the_folder_and_keeps_every_block(run: Run, copy: Path) -> None:
    """`flexrelay run FOLDER`, then SIGTERM: what was there is still there, and no money has moved."""
    program = Path(sys.executable).with_name("flexrelay")
    process = subprocess.Popen(
        [program, "run", copy, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        up = json.loads(process.stdout.readline())
        assert up["organisations"] == sorted(ORGS)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            _, errors = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            pytest.fail(f"flexrelay run did not end within 150 s of SIGTERM\n{errors}", pytrace=False)
    assert process.returncode == 0, errors
    after = read_chain(copy / "ledger" / "blocks.dat")
    assert after.height >= run.chain.height
    known = [tx.tx_id for tx in run.chain.transactions]
    assert [tx.tx_id for tx in after.transactions][: len(known)] == known
    assert {tx.function for tx in after.transactions[len(known) :]} <= {"evidence.anchor"}
    assert {a: b for a, b in posted(after).accounts.items() if b} == run.report["accounts"]
