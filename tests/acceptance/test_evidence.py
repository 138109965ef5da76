"""Anchors: every organisation's roots recomputed from journal bytes and salts, and B's forged one among them."""

import pytest
from acceptance.conftest import ORGS, Run
from acceptance.independent.journals import anchors_of

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("org", ORGS)
def test_every_anchor_is_the_root_of_the_journals_bytes(run: Run, org: str) -> None:
    stands = {
        (event["org"], event["anchor_id"]): event["root"] for event in run.chain.events("evidence.anchored")
    }  # fmt: skip
    anchors = anchors_of(run.folder, run.holders[org])
    assert anchors
    for anchor in anchors:
        assert anchor.recomputed_root == anchor.stated_root == stands[org, anchor.anchor_id]


@pytest.mark.parametrize("org", ORGS)
def test_every_reading_of_the_story_is_under_exactly_one_anchor(run: Run, org: str) -> None:
    end = run.market.days[run.market.date]["start"] + 86_400_000
    covered = [place for anchor in anchors_of(run.folder, run.holders[org]) for place in anchor.instants]
    assert len(covered) == len(set(covered)) or run.report["windows"] > len(covered)  # revisions hold a leaf again
    first = run.market.days[min(run.market.days)]["start"]
    wanted = {(did, instant) for did, instant in run.holders[org].registers if first < instant <= end}
    assert wanted <= set(covered)


@pytest.mark.parametrize("org", ORGS)
def test_anchors_were_on_the_ledger_before_the_settlement_was_proposed(run: Run, org: str) -> None:
    place = {tx.tx_id: index for index, tx in enumerate(run.chain.valid)}
    proposed = min(place[tx.tx_id] for tx in run.chain.calls("settlement.propose"))
    end = run.market.days[run.market.date]["start"] + 86_400_000
    calls = {tx.args["anchor_id"]: place[tx.tx_id] for tx in run.chain.calls("evidence.anchor")}
    for anchor in anchors_of(run.folder, run.holders[org]):
        if any(instant <= end for _, instant in anchor.instants):
            assert calls[anchor.anchor_id] < proposed


def test_one_anchor_is_of_no_journal(run: Run) -> None:
    """B's forgery: the ledger took its hash, and no organisation's journal gives that root."""
    held = {anchor.anchor_id for org in ORGS for anchor in anchors_of(run.folder, run.holders[org])}
    (odd,) = [event for event in run.chain.events("evidence.anchored") if event["anchor_id"] not in held]
    assert odd["org"] == "agg-b"


def test_counts_of_anchors_are_what_they_cover(run: Run) -> None:
    args = {tx.args["anchor_id"]: tx.args for tx in run.chain.calls("evidence.anchor")}
    for org in ORGS:
        for anchor in anchors_of(run.folder, run.holders[org]):
            stated = args[anchor.anchor_id]
            assert (stated["windows"], stated["leaves"]) == (anchor.windows, anchor.leaves)
