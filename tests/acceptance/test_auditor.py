"""The auditor is no rubber stamp: for each kind of falsehood there is a check of its that fails."""

import copy as copying
import dataclasses
from pathlib import Path

import pytest
from acceptance.conftest import Run
from acceptance.independent.blocks import read_chain
from acceptance.independent.journals import Holder, anchors_of, read_holder
from acceptance.independent.market import Market
from acceptance.independent.money import first_principles, imbalance, posted, settlements
from acceptance.test_tampering import flip, reading_of_the_day, rechain

pytestmark = pytest.mark.timeout(1800)

KWH = 3_600_000


def _with_register(run: Run, name: str, isp: int) -> dict[str, Holder]:
    """Holders in which a battery's register is 1 kWh higher from the end of an ISP on."""
    meter, end = run.market.meter[name], run.market.bounds(isp)[1]
    changed = copying.deepcopy(run.holders)
    for holder in changed.values():
        for (did, instant), registers in holder.registers.items():
            if did == meter and instant >= end:
                registers["import_j"] += KWH
    return changed


def test_a_kilowatt_hour_more_in_the_registers_changes_lines_and_accounts(run: Run) -> None:
    market = Market(run.chain, _with_register(run, "s2", 55))
    before, after = settlements(run.market, judged=True), settlements(market, judged=True)
    assert [a.provider for a in after.values()] != [b.provider for b in before.values()]
    losses = run.chain.calls("imbalance.allocate")[0].args["losses_brp"]
    found = imbalance(market, run.report["meters"][run.report["congestion_point"]], losses)
    tso = run.chain.calls("imbalance.settle")[0].actor
    assert first_principles(market, found, tso) != run.report["accounts"]


def test_another_price_in_an_intent_breaks_its_signature(run: Run) -> None:
    chain = copying.deepcopy(run.chain)
    order = chain.calls("local_energy.order")[0]
    order.message["args"]["price_nano_eur_per_wh"] += 1
    assert chain.forged_intents() == [order.tx_id]


def test_a_posting_more_is_an_account_that_differs(run: Run) -> None:
    chain = copying.deepcopy(run.chain)
    chain.events("accounts.posted")[-1]["lines"][0]["micro_eur"] += 1
    assert {a: b for a, b in posted(chain).accounts.items() if b} != run.report["accounts"]


def test_a_flipped_byte_in_the_block_file_is_seen(run: Run, copy: Path) -> None:
    path = copy / "ledger" / "blocks.dat"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError):
        read_chain(path)


def test_a_flipped_byte_in_a_journal_is_seen(run: Run, copy: Path) -> None:
    position, payload = reading_of_the_day(run)
    flip(copy / "agg-b" / "journal.db", position, payload, b'"import_j":')
    with pytest.raises(AssertionError, match="is changed"):
        read_holder(copy, "agg-b", run.chain.keys, "demo")
    rechain(copy / "agg-b" / "journal.db")
    (refused,) = read_holder(copy, "agg-b", run.chain.keys, "demo").refused
    assert refused == f"agg-b {position}: is not signed by its device"


def test_another_reading_gives_another_root(run: Run) -> None:
    holder = run.holders["agg-b"]
    place = next(iter(anchors_of(run.folder, holder)[0].instants))
    changed = dataclasses.replace(holder, payloads={**holder.payloads, place: holder.payloads[place] + b" "})
    first, *others = anchors_of(run.folder, changed)
    assert first.recomputed_root != first.stated_root
    assert all(anchor.recomputed_root == anchor.stated_root for anchor in others)
