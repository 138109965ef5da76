"""What no amount can hold: it blocks no settlement, and takes no other interval's right value away."""

import copy
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.market import ISP_S, Market
from support.refusals import refused
from unit.contracts.test_dispute_neighbours import WH, Delivery

from flexrelay_contracts.market.dispute import MAX_EVIDENCE_BYTES
from flexrelay_contracts.market.settlement import MAX_DETAIL_BYTES
from flexrelay_contracts.market.terms import MAX_POWER_W
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import MAX_INTEGER, canonical

MOST_J = MAX_POWER_W * 900
"""10 GW over an interval."""
SCALE = 3_600_000
PENALTY = 10**9
"""n€/Wh, the highest there is: 10 GW in the wrong direction are 2.5 × 10¹⁵ µ€."""


class Extreme(Delivery):
    """What is said is in joules."""

    def __init__(self, **changes: Any) -> None:
        super().__init__((2500, 2500, 2500), fund_micro_eur=10**13, penalty_nano_eur_per_wh=PENALTY, **changes)

    def say(self, said_j: dict[int, int]) -> None:
        market = self.market
        market.net.to(market.net.market_ms + 1000)
        energy = {isp: said_j.get(isp, true) for isp, true in self.true.items()}
        self.settlement = market.send_proposal(market.proposal(self.order, b1=energy))

    def near(self, part: int) -> int:
        """Joules in 49 with whose penalty the lines are all but a `part` of what an amount holds."""
        return self.true[49] - MAX_INTEGER // part * SCALE // PENALTY + 2_146

    def prove(self, isp: int, energy_j: int) -> None:
        self.proofs[isp, "agg-b"] = self.market.meter_proofs("agg-b", "b1", isp, energy_j, attested=2)


def test_who_proposes_near_the_bound_takes_no_right_value_away() -> None:
    """The DSO proposes too little in 51, and in 49 so much too little that the right value of 51 would not fit beside
    it; it has 51 resolved first."""
    case = Extreme()
    case.hold("agg-b", 49, 51)
    case.say({49: case.near(4), 51: 2_400 * WH})
    case.open(49)
    case.open(51)
    assert [line["net_micro_eur"] for line in case.lines()[1:]] == [300_000, 288_000]  # 12,000 less, and 8,000 are left
    assert [verdict["verdict"] for verdict in case.resolve(51, 49)] == ["challenger", "challenger"]
    assert case.energies_wh() == [2500, 2500, 2500]
    case.finish()


def test_a_proposal_takes_a_quarter_at_most() -> None:
    case = Extreme()
    with refused("out_of_range", "lines"):
        case.say({49: case.near(4) - 100})


@pytest.mark.parametrize("sign", [1, -1])
def test_more_than_ten_gigawatts_are_not_proposed_claimed_or_proven(sign: int) -> None:
    case = Extreme()
    case.prove(49, sign * (MOST_J + 1))
    for said in ({49: sign * (MOST_J + 1)}, {49: sign * 10**15}):
        with refused("energy", "lines.0.actual_j"):
            case.say(said)
    made = case.market.proposal(case.order, b1={49: sign * (MOST_J + 1)}, b2={49: -sign * (MOST_J + 1)})
    with refused("energy", "detail.connections.0.energy_j"):
        case.market.send_proposal(made)
    case.market.net.to(case.market.net.market_ms + 1000)
    case.say({49: 0})
    with refused("energy", "claimed_j"):
        case.market.open(case.market.agg_b, case.settlement, 49, "b1", sign * (MOST_J + 1))
    case.open(49, 1, case.market.dso)
    (verdict,) = case.resolve(49)
    assert verdict["verdict"] == "unresolved" and verdict["findings"]["respondent"]["code"] == "energy"
    assert case.energies_wh() == [0, 2500, 2500]
    case.finish()


@pytest.mark.parametrize("fallback", ["proposed", "no_delivery"])
def test_what_is_proven_together_beyond_all_amounts_stays_unresolved(fallback: str) -> None:
    case = Extreme(fallback=fallback)
    for isp in (49, 50):
        case.prove(isp, -MOST_J)
    case.say({})
    for isp in (49, 50):
        case.open(isp, -MOST_J // WH)
    verdicts = case.resolve(49, 50)
    assert [verdict["verdict"] for verdict in verdicts] == ["challenger", "unresolved"]
    assert case.energies_wh() == [-MOST_J // WH, 2500, 2500]
    assert [line["no_delivery"] for line in case.lines()] == [False, fallback == "no_delivery", False]
    case.finish()


def test_a_fallback_that_no_amount_holds_blocks_nothing() -> None:
    """Proven absurdities fill the lines up to the bound; then 51 is disputed without any evidence, and no delivery
    there would cost more than is left."""
    case = Extreme(fallback="no_delivery")
    left = MAX_INTEGER // 2 * SCALE // PENALTY - MOST_J - 2 * 2_500 * WH - 7_200
    case.prove(49, -MOST_J)
    case.prove(50, -left)
    case.say({})
    case.market.open(case.market.agg_b, case.settlement, 49, "b1", -MOST_J, "d49")
    case.market.open(case.market.agg_b, case.settlement, 50, "b1", -left, "d50")
    for isp in (49, 50):
        case.market.show(case.market.agg_b, case.proofs[isp, "agg-b"], f"d{isp}")
    case.open(51, 0, case.market.dso)
    verdicts = case.resolve(49, 50, 51)
    assert [verdict["verdict"] for verdict in verdicts] == ["challenger", "challenger", "unresolved"]
    assert not case.lines()[2]["no_delivery"]
    case.finish()


energies = st.sampled_from([None, 0, 2_000 * WH, MOST_J, -MOST_J, 1_000_000 - MOST_J])
"""What the DSO says or shows; None: what the meter says."""


@settings(max_examples=25, deadline=None)
@given(
    said=st.tuples(energies, energies, energies),
    ranks=st.tuples(*[st.integers(0, 3)] * 3),
    claims=st.tuples(*[st.none() | energies.map(lambda energy: 7 if energy is None else energy)] * 3),
    words=st.tuples(energies, energies, energies),
    order=st.permutations([49, 50, 51]),
    penalty=st.sampled_from([150_000, PENALTY]),
    fallback=st.sampled_from(["proposed", "no_delivery"]),
)
def test_who_holds_the_meters_signatures_ends_up_with_what_it_says(
    said: tuple[int | None, ...], ranks: tuple[int, ...], claims: tuple[int | None, ...], words: tuple[int | None, ...],
    order: list[int], penalty: int, fallback: str,
) -> None:  # fmt: skip
    """Whatever the DSO proposes, calls an estimate, disputes first, has its gateway attest, and has resolved first: B
    disputes what it can, and shows the signed registers wherever something is disputed."""
    case = Delivery((2_500, 1_500, 0), fund_micro_eur=10**13, penalty_nano_eur_per_wh=penalty, fallback=fallback)
    market = case.market
    case.hold("agg-b", 49, 50, 51)
    for isp, energy in zip(case.true, words, strict=True):
        if energy is not None:
            case.proofs[isp, "dso"] = market.meter_proofs("dso", "b1", isp, energy, attested=2)
    market.net.to(market.net.market_ms + 1000)
    stated = zip(case.true.items(), said, strict=True)
    made = market.proposal(case.order, b1={isp: true if energy is None else energy for (isp, true), energy in stated})
    next(item for item in made["detail"]["connections"] if item["connection"] == "b1")["quality"] = list(ranks)
    made["lines"] = [{**line, "quality": rank} for line, rank in zip(made["lines"], ranks, strict=True)]
    try:
        case.settlement = market.send_proposal(made)
    except Refused as no:
        assert (no.code, penalty) == ("out_of_range", PENALTY)
        return
    disputed = []
    for isp, claim in zip(case.true, claims, strict=True):
        for party, claimed in ((market.dso, claim), (market.agg_b, case.true[isp])):
            if claimed is not None and isp not in disputed:
                try:
                    market.open(party, case.settlement, isp, "b1", claimed, f"d{isp}")
                    disputed.append(isp)
                except Refused as no:
                    assert no.code == "nothing_disputed"
    for isp in disputed:
        for org, party in (("agg-b", market.agg_b), ("dso", market.dso)):
            if (isp, org) in case.proofs:
                market.show(party, case.proofs[isp, org], f"d{isp}")
    case.resolve(*[isp for isp in order if isp in disputed])
    assert [line["actual_j"] for line in case.lines()] == list(case.true.values())
    assert not any(line["no_delivery"] for line in case.lines())
    case.finish()


def test_what_is_shown_in_private_has_a_size_that_the_other_side_can_read() -> None:
    """Whoever shows evidence that nobody can read within a call's time keeps a dispute from being resolved, and with it
    the settlement from being final; so does a detail with a hundred megabytes of blanks."""
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    proposal = market.proposal(order)
    data = canonical(proposal["detail"]) + b" " * MAX_DETAIL_BYTES
    named = {name: value for name, value in proposal.items() if name != "detail"}
    named["detail_hash"] = hashlib.sha256(data).hexdigest()
    market.net.to(market.day.end)
    with pytest.raises(Refused) as caught:
        market.net.call_with({"detail": data}, market.dso, "settlement.propose", **named)
    assert (caught.value.code, caught.value.field) == ("too_large", "detail")

    proofs = market.meter_proofs("agg-a", "a1", 49, 10_000 * ISP_S)
    market.net.to(market.net.market_ms + 1000)
    market.open(market.agg_a, market.propose(order, a1={49: 0}), 49, "a1", 10_000 * ISP_S)
    padded = copy.deepcopy(proofs)
    padded[0]["in_window"]["hashes"] = ["00" * 32] * (MAX_EVIDENCE_BYTES // 64)
    with pytest.raises(Refused) as caught:
        market.show(market.agg_a, padded)
    assert (caught.value.code, caught.value.field) == ("too_large", "evidence")
    market.show(market.agg_a, proofs)
