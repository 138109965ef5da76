"""Disputes: who wins over signature, inclusion, register difference, rank, time, equivocation, and when nobody does."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Party
from support.market import ISP_S, Market

from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.encoding import b64u

KWH = 3_600_000
BOND = 5_000_000
START = 1_000_000_000


class Case:
    """B is ordered 10 kW in ISPs 49 and 50; the DSO says that b1 drew 1000 Wh in ISP 49, B claims 2500 Wh."""

    def __init__(self, **changes: Any) -> None:
        self.market = Market.start(**changes)
        _, self.order = self.market.order()
        self.market.deliver(self.order)
        self.claimed = 10_000 * ISP_S
        self.proposed = 1 * KWH
        self.market.net.to(self.market.day.end)
        self.settlement = ""

    def propose(self) -> None:
        self.market.net.to(self.market.net.market_ms + 1000)
        self.settlement = self.market.propose(self.order, b1={49: self.proposed})

    def open(self, party: Party | None = None, claimed: int | None = None, name: str = "d1") -> None:
        self.market.open(party or self.market.agg_b, self.settlement, 49, "b1", claimed or self.claimed, name)

    def proofs(self, org: str, energy_j: int, **changes: Any) -> list[dict[str, Any]]:
        return self.market.meter_proofs(org, "b1", 49, energy_j, **changes)

    def decide(self, ours: Any = None, theirs: Any = None) -> Mapping[str, Any]:
        """B shows `ours`, the DSO `theirs` (None: nothing)."""
        self.open()
        if ours:
            self.market.show(self.market.agg_b, ours)
        if theirs:
            self.market.show(self.market.dso, theirs)
        if not (ours and theirs):
            self.market.net.to(self.market.net.market_ms + 172_800_000)
        return self.market.resolve(self.market.dso)

    def codes(self, verdict: Mapping[str, Any]) -> tuple[str, str, str]:
        findings = verdict["findings"]
        return verdict["verdict"], findings["challenger"]["code"], findings["respondent"]["code"]

    def finish(self) -> None:
        """Accept and finalise; bonds and B's escrow are empty, evidence is purged."""
        self.market.net.call(self.market.agg_b, "settlement.accept", settlement=self.settlement)
        self.market.net.call(self.market.dso, "settlement.finalise", settlement=self.settlement)
        assert not [
            name for name in self.market.held() if name.startswith(("bond:", f"escrow:{self.market.agg_b.did}"))
        ]
        assert not [place for place in self.market.net.ledger.private if "dispute_evidence" in place[1]]


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)


def test_the_meters_signature_beats_the_gateways_word() -> None:
    """The demo's story: B's gateway attests what a failed battery never drew; the DSO holds what the meter signed."""
    case = Case()
    ours = case.proofs("agg-b", case.claimed, attested=True)
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    verdict = case.decide(ours, theirs)
    assert case.codes(verdict) == ("respondent", "counts", "counts")
    assert verdict["findings"]["challenger"]["rank"] == 2 and verdict["findings"]["respondent"]["rank"] == 3
    assert verdict["line"]["actual_j"] == case.proposed
    assert case.market.money(case.market.dso) == START - 1_100_000 + BOND
    case.finish()
    # 1000 of 2500 Wh at 120 €/MWh less 1500 Wh at 150 €/MWh; ISP 50 in full; the bond is lost
    assert case.market.money(case.market.agg_b) == START + 120_000 - 225_000 + 300_000 - BOND


def test_a_right_claim_is_paid_and_the_loser_bears_the_cost() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed)
    case.propose()
    verdict = case.decide(ours, None)
    assert case.codes(verdict) == ("challenger", "counts", "no_evidence")
    assert verdict["line"]["actual_j"] == case.claimed and verdict["line"]["deficiency_j"] == 0
    case.finish()
    assert case.market.money(case.market.agg_b) == START + 600_000 + BOND
    assert case.market.money(case.market.dso) == START - 600_000 - 500_000 - BOND


def test_a_verdict_replaces_one_connections_energy_in_the_line() -> None:
    case = Case()
    case.market.energy["b2", 49] = -7_777
    ours = case.proofs("agg-b", case.claimed)
    case.propose()
    verdict = case.decide(ours, None)
    assert verdict["line"]["actual_j"] == case.claimed - 7_777


def test_a_respondent_without_money_pays_what_it_has() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed)
    case.propose()
    case.open()
    case.market.show(case.market.agg_b, ours)
    rest = case.market.money(case.market.dso) - 7
    account = f"actor:{case.market.dso.did}"
    case.market.net.call(case.market.net.operator, "accounts.withdraw", account=account, micro_eur=rest)
    case.market.net.to(case.market.net.market_ms + 172_800_000)
    case.market.resolve(case.market.agg_b)
    assert case.market.money(case.market.dso) == 0
    assert case.market.money(case.market.agg_b) == START - 1_000_001 + 7


def test_a_signature_that_is_not_the_meters_does_not_count() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed, signer=case.market.agg_b)
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    verdict = case.decide(ours, theirs)
    assert case.codes(verdict) == ("respondent", "signature", "counts")


def test_inclusion_is_checked_in_both_trees() -> None:
    for where in ("in_window", "in_anchor", "window", "salt", "payload"):
        case = Case()
        ours = case.proofs("agg-b", case.claimed)
        theirs = case.proofs("dso", case.proposed)
        other = case.market.meter_proofs("agg-b", "b1", 49, case.claimed + 3_600)
        if where == "in_window":
            ours[1]["in_window"] = {"index": 0, "size": 2, "hashes": ["00" * 32]}
        elif where == "in_anchor":
            ours[1]["in_anchor"] = {"index": 0, "size": 2, "hashes": ["00" * 32]}
        elif where == "window":
            ours[1]["window"] = {**ours[1]["window"], "revision": 2}
        else:
            ours[1][where] = other[1][where] if where == "payload" else "A" * 22
        case.propose()
        verdict = case.decide(ours, theirs)
        assert case.codes(verdict) == ("respondent", "inclusion", "counts"), where


def test_a_root_nobody_anchored_does_not_count() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed)
    for proof in ours:
        proof["anchor_id"] = "elsewhere"
    case.propose()
    assert case.codes(case.decide(ours, None)) == ("unresolved", "not_anchored", "no_evidence")


def test_a_root_anchored_after_the_proposal_does_not_count() -> None:
    case = Case()
    case.propose()
    late = case.proofs("agg-b", case.claimed)
    assert case.codes(case.decide(late, None)) == ("unresolved", "anchored_late", "no_evidence")


def test_late_readings_cannot_discredit_a_meter() -> None:
    """Signing a second value after the proposal is no equivocation that annuls the first."""
    case = Case()
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    late = case.proofs("agg-b", case.claimed)
    assert case.codes(case.decide(late, theirs)) == ("respondent", "anchored_late", "counts")


@pytest.mark.parametrize("energy", [8_999_999, 9_000_001, 0, -9_000_000])
def test_the_registers_differ_by_exactly_the_claim(energy: int) -> None:
    case = Case()
    ours = case.proofs("agg-b", energy)
    case.propose()
    assert case.codes(case.decide(ours, None)) == ("unresolved", "register_difference", "no_evidence")


def test_a_register_that_goes_backwards_proves_nothing() -> None:
    """An import register that falls is no feed-in: that is what the export register is for."""
    case = Case()
    meter = case.market.connections["b1"].meter
    assert meter is not None
    start, end = case.market.bounds(49)
    falling = {start: case.market.signed(meter, start, 5_000_000), end: case.market.signed(meter, end, 1_000_000)}
    ours = case.market.anchor("agg-b", meter, falling)
    case.propose()
    case.claimed = -4_000_000
    assert case.codes(case.decide(ours, None)) == ("unresolved", "register_difference", "no_evidence")


def test_registers_of_another_instant_or_another_meter_do_not_count() -> None:
    case = Case()
    other = case.market.meter_proofs("agg-b", "b2", 49, case.claimed)
    case.propose()
    assert case.codes(case.decide(other, None))[1] == "other_meter"
    again = Case()
    shifted = again.market.meter_proofs("agg-b", "b1", 50, again.claimed)
    again.propose()
    assert again.codes(again.decide(shifted, None))[1] == "other_instant"


def test_equivocation_suspends_the_meter_and_leaves_the_fallback() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed)
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    verdict = case.decide(ours, theirs)
    assert case.codes(verdict) == ("equivocation", "equivocation", "equivocation")
    assert verdict["line"]["actual_j"] == case.proposed, "the shipped product's fallback: the proposed value"
    meter = case.market.connections["b1"].meter
    assert meter is not None
    suspended = [payload for name, payload in case.market.net.ledger.events if name == "identity.suspended"]
    assert len(suspended) == 1 and meter.did.encode() in suspended[0]
    case.finish()
    assert case.market.money(case.market.agg_b) == START + 120_000 - 225_000 + 300_000, "the bond came back"


def test_another_set_of_registers_is_no_second_value() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.proposed, more={"voltage_mv": 230_000})
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    assert case.codes(case.decide(ours, theirs)) == ("respondent", "register_difference", "counts")


@pytest.mark.parametrize(("one", "two"), [(1, 1), (2, 2), (1, 2)])
def test_a_gateway_that_attests_two_values_loses_its_side_only(one: int, two: int) -> None:
    """Also where it said one of them before an upgrade and the other one after it."""
    case = Case()
    ours = case.proofs("agg-b", case.claimed, attested=one)
    twice = case.proofs("agg-b", case.claimed + 1, attested=two)
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    # the start readings agree; the end readings are of two values for one instant
    verdict = case.decide([twice[1], ours[1]], theirs)
    assert case.codes(verdict) == ("respondent", "equivocation", "counts")
    assert not [name for name, _ in case.market.net.ledger.events if name == "identity.suspended"]


def test_equivocation_of_another_device_discredits_nobody_elses_meter() -> None:
    case = Case()
    one = case.market.meter_proofs("agg-b", "b2", 49, 1)
    two = case.market.meter_proofs("agg-b", "b2", 49, 2)
    theirs = case.proofs("dso", case.proposed)
    case.propose()
    assert case.codes(case.decide([one[1], two[1]], theirs)) == ("respondent", "other_meter", "counts")


def test_nothing_provable_is_unresolved_and_the_bond_comes_back() -> None:
    case = Case()
    case.propose()
    verdict = case.decide(None, None)
    assert case.codes(verdict) == ("unresolved", "no_evidence", "no_evidence")
    assert verdict["line"]["actual_j"] == case.proposed and not verdict["line"]["no_delivery"]
    assert case.market.money(case.market.agg_b) == START - 1_000_001
    case.finish()


def test_the_other_fallback_is_no_delivery() -> None:
    case = Case(fallback="no_delivery")
    case.propose()
    verdict = case.decide(None, None)
    assert verdict["line"]["no_delivery"] and verdict["line"]["delivered_j"] == 0
    case.finish()
    assert case.market.money(case.market.agg_b) == START - 375_000 + 300_000


def test_two_sides_of_one_rank_leave_it_unresolved() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed, attested=True)
    theirs = case.proofs("dso", case.proposed, attested=True)
    case.propose()
    assert case.codes(case.decide(ours, theirs)) == ("unresolved", "counts", "counts")


def test_a_product_may_ask_for_the_meters_own_signature() -> None:
    case = Case(verification="meter_signed")
    ours = case.proofs("agg-b", case.claimed, attested=True)
    case.propose()
    assert case.codes(case.decide(ours, None)) == ("unresolved", "rank_too_low", "no_evidence")


def test_the_buyer_may_dispute_its_own_proposal() -> None:
    case = Case()
    theirs = case.proofs("dso", 2 * KWH)
    case.propose()
    case.open(case.market.dso, 2 * KWH)
    case.market.show(case.market.dso, theirs)
    case.market.net.to(case.market.net.market_ms + 172_800_000)
    verdict = case.market.resolve(case.market.agg_b)
    assert verdict["verdict"] == "challenger" and verdict["line"]["actual_j"] == 2 * KWH
    case.finish()


@pytest.mark.parametrize("claimed", [KWH - 1, 0, 3 * KWH])
def test_nobody_keeps_a_wrong_proposal_by_disputing_it_first(claimed: int) -> None:
    """The DSO proposes too little and claims something else at once: B cannot dispute the interval any more, but shows
    what the meter says."""
    case = Case()
    truth = case.proofs("agg-b", case.claimed)
    case.propose()
    market = case.market
    market.open(market.dso, case.settlement, 49, "b1", claimed)
    refused("already_disputed", "connection", lambda: case.open(name="d2"))
    market.show(market.agg_b, truth)
    market.net.to(market.net.market_ms + 172_800_000)
    verdict = market.resolve(market.agg_b)
    assert case.codes(verdict) == ("respondent", "no_evidence", "counts")
    assert verdict["line"]["actual_j"] == case.claimed and verdict["line"]["quality"] == 3
    assert verdict["line"]["deficiency_j"] == 0
    case.finish()
    assert market.money(market.agg_b) == START + 600_000 + BOND
    assert market.money(market.dso) == START - 600_000 - 500_000 - BOND


def test_the_meters_signature_beats_a_false_claim_also_where_the_proposal_was_wrong() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed, attested=2)
    theirs = case.proofs("dso", 2 * KWH)
    case.propose()
    verdict = case.decide(ours, theirs)
    assert case.codes(verdict) == ("respondent", "counts", "counts")
    assert verdict["line"]["actual_j"] == 2 * KWH
    case.finish()


@pytest.mark.parametrize("attested", [0, 2])
def test_who_shows_that_the_claim_is_right_has_lost(attested: int) -> None:
    """Whether the challenger shows it too or not; the better evidence gives the rank."""
    for mine in (None, 0, 2):
        case = Case()
        ours = None if mine is None else case.proofs("agg-b", case.claimed, attested=mine)
        theirs = case.proofs("dso", case.claimed, attested=attested)
        case.propose()
        verdict = case.decide(ours, theirs)
        assert verdict["verdict"] == "challenger" and verdict["line"]["actual_j"] == case.claimed
        assert verdict["line"]["quality"] == (2 if attested and mine in (None, 2) else 3)
        case.finish()


def test_two_words_of_one_rank_for_two_values_leave_the_proposal() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed, attested=2)
    theirs = case.proofs("dso", 2 * KWH, attested=2)
    case.propose()
    verdict = case.decide(ours, theirs)
    assert case.codes(verdict) == ("unresolved", "counts", "counts")
    assert verdict["line"]["actual_j"] == case.proposed
    case.finish()


@pytest.mark.parametrize(("before", "code"), [(True, "key_not_valid_then"), (False, "counts")])
def test_a_signature_counts_when_the_key_was_valid_at_the_reading(before: bool, code: str) -> None:
    case = Case.__new__(Case)
    market = case.market = Market.start()
    _, case.order = market.order()
    market.deliver(case.order)
    case.claimed, case.proposed = 10_000 * ISP_S, 1 * KWH
    meter = market.connections["b1"].meter
    assert meter is not None
    start, end = market.bounds(49)
    market.net.to(start - 1 if before else end + 1)
    market.net.call(market.agg_b, "identity.deactivate", did=meter.did, reason="the key was stolen")
    market.net.to(market.day.end)
    ours = case.proofs("agg-b", case.claimed)
    case.propose()
    assert case.codes(case.decide(ours, None))[1] == code


def test_rules_of_opening_and_showing() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed)
    case.propose()
    market = case.market
    refused("not_party", "actor", lambda: case.open(market.agg_a))
    refused("nothing_disputed", "claimed_j", lambda: case.open(claimed=case.proposed))
    refused("isp", "isp", lambda: market.open(market.agg_b, case.settlement, 51, "b1", 1))
    refused("connection", "connection", lambda: market.open(market.agg_b, case.settlement, 49, "a1", 1))
    refused("unknown_settlement", "settlement", lambda: market.open(market.agg_b, "none", 49, "b1", 1))
    refused("unknown_dispute", "dispute_id", lambda: market.resolve(market.dso))
    case.open()
    refused("dispute_id", "dispute_id", lambda: case.open())
    refused("already_disputed", "connection", lambda: case.open(name="d2"))
    refused("disputed", "settlement", lambda: market.net.call(
        market.agg_b, "settlement.accept", settlement=case.settlement))  # fmt: skip
    refused("disputed", "settlement", lambda: market.net.call(
        market.dso, "settlement.finalise", settlement=case.settlement))  # fmt: skip
    refused("not_party", "actor", lambda: market.show(market.agg_a, ours))
    refused("evidence_window", "dispute_id", lambda: market.resolve(market.dso))
    refused("evidence_hash", "evidence_hash", lambda: market.net.call_with(
        {"evidence": b"{}"}, market.agg_b, "dispute.evidence", dispute_id="d1", evidence_hash="0" * 64))  # fmt: skip
    market.show(market.agg_b, ours)
    refused("evidence_exists", "dispute_id", lambda: market.show(market.agg_b, ours))
    market.net.to(market.net.market_ms + 172_800_000)
    refused("window_closed", "dispute_id", lambda: market.show(market.dso, ours))
    refused("not_party", "actor", lambda: market.resolve(market.agg_a))
    market.resolve(market.agg_b)
    refused("dispute_status", "dispute_id", lambda: market.resolve(market.dso))
    refused("window_closed", "settlement", lambda: market.open(market.agg_b, case.settlement, 50, "b1", 1, "d3"))


def test_evidence_is_for_its_own_dispute_and_needs_the_bond() -> None:
    case = Case()
    ours = case.proofs("agg-b", case.claimed)
    case.propose()
    market = case.market
    account = f"actor:{market.agg_b.did}"
    rest = market.money(market.agg_b) - BOND + 1
    market.net.call(market.net.operator, "accounts.withdraw", account=account, micro_eur=rest)
    refused("funds", "account", lambda: case.open())
    market.net.call(market.net.operator, "accounts.fund", account=account, micro_eur=1)
    case.open()
    market.net.call(market.net.operator, "accounts.fund", account=account, micro_eur=BOND)
    market.open(market.agg_b, case.settlement, 49, "b2", 1, "d2")
    data = canonical({"v": 1, "salt": "cd" * 32, "dispute_id": "d2", "start": ours[0], "end": ours[1]})
    named = {"dispute_id": "d1", "evidence_hash": hashlib.sha256(data).hexdigest()}
    refused("evidence", "evidence.dispute_id", lambda: market.net.call_with(
        {"evidence": data}, market.agg_b, "dispute.evidence", **named))  # fmt: skip
    assert market.net.ask("dispute.one", dispute_id="d1")["evidence"] == {}


def test_a_product_without_a_dispute_window_has_no_disputes() -> None:
    case = Case(dispute_window_s=0, bond_micro_eur=0)
    case.propose()
    refused("window_closed", "settlement", lambda: case.open())
    case.market.net.call(case.market.dso, "settlement.finalise", settlement=case.settlement)


@st.composite
def broken(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Changes to a proof: (dotted path, value)."""
    paths = ["payload", "salt", "org", "anchor_id", "in_window.index", "in_window.size", "in_window.hashes"]
    paths += ["in_anchor.index", "in_anchor.size", "in_anchor.hashes", "window.isp", "window.root", "window.leaves"]
    values = st.one_of(
        st.integers(0, 2**40),
        st.text("Aa0-_", max_size=40),
        st.just("00" * 32),
        st.lists(st.just("ab" * 32), max_size=3),
        st.sampled_from(["e30", b64u(b'{"v":1}'), b64u(b"\xff"), b64u(b"[1.5]"), b64u(b'{"attestation":{}}')]),
    )
    return draw(st.lists(st.tuples(st.sampled_from(paths), values), min_size=1, max_size=3))


@given(changes=broken())
@settings(max_examples=150, deadline=None)
def test_broken_evidence_is_refused_or_loses(changes: list[tuple[str, Any]], opened: "Opened") -> None:
    """Whatever stands in a proof: refused when it is shown, or it does not count; the dispute is always decided."""
    case, proofs = opened.again()
    for path, value in changes:
        place: Any = proofs[1]
        *parents, last = path.split(".")
        for name in parents:
            place = place[name]
        place[last] = value
    try:
        case.market.show(case.market.agg_b, proofs)
    except Refused as refusal:
        assert refusal.code == "invalid_argument"
        return
    verdict = case.market.resolve(case.market.dso)
    untouched = proofs == opened.proofs
    assert verdict["verdict"] == ("challenger" if untouched else "unresolved")


class Opened:
    """A dispute that is open and waits for B's evidence; the DSO has shown some that does not count."""

    def __init__(self) -> None:
        self.case = Case()
        self.proofs = self.case.proofs("agg-b", self.case.claimed)
        useless = self.case.market.meter_proofs("dso", "b2", 49, 1)
        self.case.propose()
        self.case.open()
        self.case.market.show(self.case.market.dso, useless)
        ledger = self.case.market.net.ledger
        self._kept = dict(ledger.state), dict(ledger.private), list(ledger.events), ledger.count

    def again(self) -> tuple[Case, list[dict[str, Any]]]:
        ledger = self.case.market.net.ledger
        state, private, events, ledger.count = self._kept
        ledger.state, ledger.private, ledger.events = dict(state), dict(private), list(events)
        return self.case, copy.deepcopy(self.proofs)


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened()
