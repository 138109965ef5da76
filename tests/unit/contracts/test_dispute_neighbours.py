"""What a won dispute means for the estimate beside it: the same energy is settled once, and its quality is told."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Party
from support.market import ISP_S, Market, option, requested

from flexrelay_contracts.market.corrections import (
    NO_ESTIMATE_BESIDE,
    NOT_ESTIMATED,
    TWO_ESTIMATES_BESIDE,
    estimate_beside,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import canonical, parse
from flexrelay_schemas.quality import Provenance

START = 1_000_000_000
WH = 3_600
FULL = 10_000 * ISP_S
SIGNED, ATTESTED, ESTIMATED = Provenance.METER_SIGNED, Provenance.GATEWAY_ATTESTED, Provenance.ESTIMATED
WINDOW_MS = 172_800_000


class Delivery:
    """B is ordered 10 kW in ISPs 49, 50 and 51 from b1, with b2 at rest. `true` is what b1's meter says, Wh per ISP."""

    def __init__(self, true: tuple[int, int, int], **changes: Any) -> None:
        self.market = Market.start(**changes)
        market = self.market
        for aggregator in (market.agg_a, market.agg_b):
            market.nominate(aggregator)
        market.request([requested(isp, 0, 20_000) for isp in (49, 50, 51)])
        isps = (49, 50, 51)
        market.offer(market.agg_b, option(120_000, [10_000] * 3, isps, b1=[10_000] * 3))
        market.close()
        (self.order,) = market.clear()
        self.true = {isp: energy * WH for isp, energy in zip(isps, true, strict=True)}
        market.net.to(market.day.end)
        self.proofs: dict[tuple[int, str], Any] = {}
        self.settlement = ""

    def hold(self, org: str = "agg-b", *isps: int, attested: bool = False) -> None:
        """The organisation anchors what b1's meter said at both ends of these ISPs."""
        for isp in isps:
            self.proofs[isp, org] = self.market.meter_proofs(org, "b1", isp, self.true[isp], attested=attested)

    def propose(self, said: Mapping[int, int], ranks: Mapping[int, int] | None = None, run: str = "initial") -> None:
        """The DSO says `said` Wh of b1, as estimates unless `ranks` says otherwise; the rest is what the meter says."""
        market = self.market
        market.net.to(market.net.market_ms + 1000)
        energy = {isp: said[isp] * WH if isp in said else true for isp, true in self.true.items()}
        made = market.proposal(self.order, run, b1=energy)
        found = {isp: int(ESTIMATED) for isp in said} | dict(ranks or {})
        quality = [found.get(item["isp"], 3) for item in made["lines"]]
        next(item for item in made["detail"]["connections"] if item["connection"] == "b1")["quality"] = quality
        made["lines"] = [{**line, "quality": rank} for line, rank in zip(made["lines"], quality, strict=True)]
        self.settlement = market.send_proposal(made)

    def open(self, isp: int, claimed_wh: int | None = None, party: Party | None = None) -> None:
        claimed = self.true[isp] if claimed_wh is None else claimed_wh * WH
        self.market.open(party or self.market.agg_b, self.settlement, isp, "b1", claimed, f"d{isp}")
        for org, side in (("agg-b", self.market.agg_b), ("dso", self.market.dso)):
            if (isp, org) in self.proofs:
                self.market.show(side, self.proofs[isp, org], f"d{isp}")

    def resolve(self, *isps: int) -> list[Mapping[str, Any]]:
        market = self.market
        waits = [market.net.ask("dispute.one", dispute_id=f"d{isp}")["evidence_until"] for isp in isps]
        market.net.to(max([market.net.market_ms, *waits]))
        return [market.resolve(market.dso, f"d{isp}") for isp in isps]

    def win(self, isp: int) -> Mapping[str, Any]:
        self.open(isp)
        (verdict,) = self.resolve(isp)
        assert verdict["verdict"] == "challenger"
        return verdict

    def lines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.record()["lines"]
        return found

    def record(self) -> Mapping[str, Any]:
        return self.market.net.ask("settlement.one", settlement=self.settlement)

    def energies_wh(self) -> list[int]:
        return [line["actual_j"] // WH for line in self.lines()]

    def ranks(self) -> list[int]:
        return [line["quality"] for line in self.lines()]

    def finish(self) -> None:
        self.market.net.call(self.market.agg_b, "settlement.accept", settlement=self.settlement)
        self.market.net.call(self.market.dso, "settlement.finalise", settlement=self.settlement)
        ours = ("bond:", f"escrow:{self.market.agg_b.did}", f"escrow:{self.market.dso.did}")
        assert not [name for name in self.market.held() if name.startswith(ours)]


def test_the_same_energy_is_not_paid_twice() -> None:
    """The meter: 2500, 1500, 2500 Wh. The DSO misses the register between the first two and interpolates 2000 each."""
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 2000})
    assert case.ranks() == [1, 1, 3]
    verdict = case.win(49)
    assert verdict["neighbour"] == {"isp": 50, "delta_j": -500 * WH, "reason": ""}
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 1, 3]
    line = case.lines()[1]
    assert (line["delivered_j"], line["deficiency_j"]) == (1500 * WH, 1000 * WH)
    # 1500 of 2500 Wh at 120 €/MWh less 1000 Wh at 150 €/MWh; with the old estimate it was 240,000 − 75,000
    assert [line["net_micro_eur"] for line in case.lines()] == [300_000, 180_000 - 150_000, 300_000]
    case.finish()
    bond_cost = 5_000_000
    assert case.market.money(case.market.agg_b) == START + 630_000 + bond_cost
    assert case.market.money(case.market.dso) == START - 630_000 - bond_cost


def test_the_neighbour_before_gives_too() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 51)
    case.propose({50: 1800, 51: 2200})
    assert case.win(51)["neighbour"] == {"isp": 50, "delta_j": -300 * WH, "reason": ""}
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 1, 3]


def test_what_the_respondent_proves_moves_the_neighbour_too() -> None:
    """The DSO disputes its own estimate with a claim of nothing; B shows what the meter says."""
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 2000})
    case.open(49, 0, case.market.dso)
    (verdict,) = case.resolve(49)
    assert verdict["verdict"] == "respondent"
    assert verdict["neighbour"] == {"isp": 50, "delta_j": -500 * WH, "reason": ""}
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 1, 3]
    case.finish()


@pytest.mark.parametrize("order", [(49, 50), (50, 49)])
def test_of_two_open_disputes_the_order_decides_nothing_when_the_respondent_proves_one(order: tuple[int, int]) -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49, 50)
    case.propose({49: 2000, 50: 2000})
    case.open(49)
    case.open(50, 0, case.market.dso)
    verdicts = dict(zip(order, case.resolve(*order), strict=True))
    assert (verdicts[49]["verdict"], verdicts[50]["verdict"]) == ("challenger", "respondent")
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 3, 3]
    case.finish()


@pytest.mark.parametrize("order", [(49, 50), (50, 49)])
def test_a_right_estimate_is_proven_before_it_is_moved(order: tuple[int, int]) -> None:
    """The DSO proposes too little in 49, and calls the right value beside it an estimate too: it would take back there
    what it loses here."""
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49, 50)
    case.propose({49: 2000, 50: 1500})
    case.open(49)
    case.open(50)
    verdicts = case.resolve(*order)
    assert [verdict["verdict"] for verdict in verdicts] == ["challenger", "challenger"]
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 3, 3]
    case.finish()
    cost = 5_000_000  # for 49 only: in 50 the DSO was right
    assert case.market.money(case.market.agg_b) == START + 630_000 + cost


def test_only_an_estimate_is_proven_as_it_was_proposed() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({50: 1500})
    for isp in (49, 51):
        with pytest.raises(Refused, match="nothing_disputed"):
            case.open(isp)


def test_a_claim_of_less_gives_to_the_neighbour() -> None:
    """The buyer disputes its own proposal: what the line loses the estimate beside it had drawn."""
    case = Delivery((1500, 2500, 2500))
    case.hold("dso", 49)
    case.propose({49: 2000, 50: 2000})
    case.open(49, party=case.market.dso)
    (verdict,) = case.resolve(49)
    assert verdict["verdict"] == "challenger" and verdict["neighbour"]["delta_j"] == 500 * WH
    assert case.energies_wh() == [1500, 2500, 2500] and case.ranks() == [3, 1, 3]


@pytest.mark.parametrize(
    ("said", "isp", "reason"),
    [
        ({50: 2000}, 50, NO_ESTIMATE_BESIDE),
        ({49: 2400, 50: 1700, 51: 2400}, 50, TWO_ESTIMATES_BESIDE),
        ({49: 2000, 51: 2600}, 49, NO_ESTIMATE_BESIDE),
    ],
)
def test_without_one_estimate_beside_it_nothing_else_moves(said: dict[int, int], isp: int, reason: str) -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", isp)
    case.propose(said)
    before = case.lines()
    assert case.win(isp)["neighbour"] == {"reason": reason}
    for old, new in zip(before, case.lines(), strict=True):
        assert (new["actual_j"] == case.true[isp] and new["quality"] == 3) if new["isp"] == isp else new == old
    assert case.market.net.ask("dispute.one", dispute_id=f"d{isp}")["neighbour"] == {"reason": reason}


def test_three_estimates_in_a_row_are_proven_from_the_edge() -> None:
    """Two registers are missing: each verdict passes the rest on, the last estimate ends up as what the meter says."""
    case = Delivery((2500, 1500, 2300))
    case.hold("agg-b", 49, 50)
    case.propose({49: 2100, 50: 2100, 51: 2100})
    case.open(49)
    case.open(50)
    first, second = case.resolve(49, 50)
    assert first["neighbour"] == {"isp": 50, "delta_j": -400 * WH, "reason": ""}
    assert second["neighbour"] == {"isp": 51, "delta_j": 200 * WH, "reason": ""}
    assert case.energies_wh() == [2500, 1500, 2300] and case.ranks() == [3, 3, 1]
    case.finish()


def test_a_line_that_was_no_estimate_misses_nothing() -> None:
    """The DSO's value was measured, and wrong: the estimate after it misses its other end."""
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 1600}, {49: 2})
    assert case.win(49)["neighbour"] == {"reason": NOT_ESTIMATED}
    assert case.energies_wh() == [2500, 1600, 2500] and case.ranks() == [3, 1, 3]


def test_substituted_values_promise_no_sum() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 0}, {50: 0})
    assert case.win(49)["neighbour"] == {"reason": NO_ESTIMATE_BESIDE}
    assert case.energies_wh() == [2500, 0, 2500] and case.ranks() == [3, 0, 3]


def test_quality_is_the_winning_evidences() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49, attested=True)
    case.propose({49: 2000, 50: 2000})
    case.win(49)
    assert case.ranks() == [2, 1, 3]


def test_a_line_keeps_the_lowest_rank_of_the_other_connections() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    market = case.market
    market.net.to(market.net.market_ms + 1000)
    made = market.proposal(case.order, b1={49: 2000 * WH, 50: 2000 * WH, 51: FULL})
    for item in made["detail"]["connections"]:
        item["quality"] = [1, 1, 3] if item["connection"] == "b1" else [2, 3, 3]
    made["lines"] = [{**line, "quality": rank} for line, rank in zip(made["lines"], (1, 1, 3), strict=True)]
    case.settlement = market.send_proposal(made)
    case.win(49)
    assert case.ranks() == [2, 1, 3]


def test_an_estimate_of_another_connection_is_left_alone() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    market = case.market
    market.net.to(market.net.market_ms + 1000)
    made = market.proposal(case.order, b1={49: 2000 * WH, 50: 1500 * WH, 51: FULL})
    for item in made["detail"]["connections"]:
        item["quality"] = [1, 3, 3] if item["connection"] == "b1" else [3, 1, 3]
    made["lines"] = [{**line, "quality": rank} for line, rank in zip(made["lines"], (1, 1, 3), strict=True)]
    case.settlement = market.send_proposal(made)
    assert case.win(49)["neighbour"] == {"reason": NO_ESTIMATE_BESIDE}
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 1, 3]


def test_what_was_corrected_is_what_later_disputes_see() -> None:
    """The buyer may not claim what is proven already, may claim what was proposed, and loses to the meter."""
    case = Delivery((2500, 1500, 2500), dispute_window_s=172_800)
    case.hold("agg-b", 49, 50)
    case.hold("dso", 49)
    case.propose({49: 2000, 50: 2000})
    case.open(49)
    case.market.resolve(case.market.dso, "d49")
    with pytest.raises(Refused, match="nothing_disputed"):
        case.market.open(case.market.dso, case.settlement, 49, "b1", case.true[49], "again")
    with pytest.raises(Refused, match="already_disputed"):
        case.market.open(case.market.dso, case.settlement, 49, "b1", 1, "again")
    case.open(50, 2000, case.market.dso)
    (verdict,) = case.resolve(50)
    assert verdict["verdict"] == "respondent", "B proves the corrected value"
    assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 3, 3]
    case.finish()


def test_a_value_that_was_defended_is_no_estimate_any_more() -> None:
    """B claims too much in ISP 50, the DSO proves its estimate; a verdict on ISP 49 cannot move it afterwards."""
    for order in ((50, 49), (49, 50)):
        case = Delivery((2500, 2000, 2500))
        case.hold("agg-b", 49)
        case.hold("dso", 50)
        case.propose({49: 2000, 50: 2000})
        case.open(49)
        case.open(50, 2500)
        assert sorted(verdict["verdict"] for verdict in case.resolve(*order)) == ["challenger", "respondent"]
        assert case.energies_wh() == [2500, 2000, 2500] and case.ranks() == [3, 3, 3]


def test_an_unresolved_dispute_does_not_keep_the_neighbour_from_it() -> None:
    """No delivery is the fallback for ISP 50; its metered energy still takes up the difference."""
    for order in ((50, 49), (49, 50)):
        case = Delivery((2500, 1500, 2500), fallback="no_delivery")
        case.hold("agg-b", 49)
        case.propose({49: 2000, 50: 2000})
        case.open(49)
        case.open(50, 2500)
        case.resolve(*order)
        assert case.energies_wh() == [2500, 1500, 2500] and case.ranks() == [3, 1, 3]
        assert [line["no_delivery"] for line in case.lines()] == [False, True, False]


def test_a_later_run_starts_from_its_own_detail() -> None:
    """The month's run has the missing register: it posts nothing, for the verdict had it right."""
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 2000})
    case.win(49)
    case.finish()
    before = case.market.balances()
    case.propose({}, run="month")
    assert case.record()["corrections"] == [] and case.ranks() == [3, 3, 3]
    case.finish()
    assert case.market.balances() == before


def test_a_later_run_with_the_old_estimate_can_be_disputed_again() -> None:
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 2000})
    case.win(49)
    case.finish()
    before = {name: value for name, value in case.market.balances().items() if not name.startswith("actor")}
    case.propose({49: 2100, 50: 1900}, run="month")
    case.market.open(case.market.agg_b, case.settlement, 49, "b1", case.true[49], "again")
    case.market.show(case.market.agg_b, case.proofs[49, "agg-b"], "again")
    case.market.net.to(case.market.net.market_ms + WINDOW_MS)
    verdict = case.market.resolve(case.market.dso, "again")
    assert verdict["neighbour"] == {"isp": 50, "delta_j": -400 * WH, "reason": ""}
    assert case.energies_wh() == [2500, 1500, 2500]
    case.finish()
    after = {name: value for name, value in case.market.balances().items() if not name.startswith("actor")}
    assert after == before, "both runs settle the same lines"


def test_a_dispute_from_before_there_were_corrections_is_decided() -> None:
    """Records that an earlier version of the contracts wrote do not have the fields, and hold nobody's money."""
    case = Delivery((2500, 1500, 2500))
    case.hold("agg-b", 49)
    case.propose({49: 2000, 50: 2000})
    case.open(49)
    state = case.market.net.ledger.state
    old = [name for name, data in state.items() if "corrections" in parse(data)]
    assert len(old) == 2, "the settlement and the dispute"
    for name in old:
        state[name] = canonical({field: value for field, value in parse(state[name]).items() if field != "corrections"})
    case.resolve(49)
    assert case.energies_wh() == [2500, 1500, 2500]
    case.finish()


class Kept:
    """One order; every example starts again from the anchored readings of both organisations."""

    def __init__(self, fallback: str) -> None:
        self.case = Delivery((2500, 1500, 2500), fallback=fallback)
        self.case.hold("agg-b", 49, 50)
        self.case.hold("dso", 49, 50)
        ledger = self.case.market.net.ledger
        self._kept = dict(ledger.state), dict(ledger.private), list(ledger.events), ledger.now, ledger.count

    def again(self) -> Delivery:
        ledger = self.case.market.net.ledger
        state, private, events, ledger.now, ledger.count = self._kept
        ledger.state, ledger.private, ledger.events = dict(state), dict(private), list(events)
        return self.case


@pytest.fixture(scope="module")
def kept() -> dict[str, Kept]:
    return {fallback: Kept(fallback) for fallback in ("proposed", "no_delivery")}


sides = st.sampled_from(["both", "agg-b", "dso", "nobody"])


@given(
    estimate=st.integers(0, 4000).filter(lambda wh: wh != 2500),
    claims=st.tuples(st.sampled_from([2500, 2600]), st.sampled_from([1500, 1400])),
    shown=st.tuples(sides, sides),
    fallback=st.sampled_from(["proposed", "no_delivery"]),
)
@settings(max_examples=60, deadline=None)
def test_two_disputes_give_the_same_lines_in_either_order(
    estimate: int, claims: tuple[int, int], shown: tuple[str, str], fallback: str, kept: dict[str, Kept]
) -> None:
    """The sum of the two estimates is right; whoever shows whatever, the order of the verdicts decides nothing."""
    found = []
    for order in ((49, 50), (50, 49)):
        case = kept[fallback].again()
        proofs = dict(case.proofs)
        said = {49: estimate, 50: 4000 - estimate}
        case.propose(said)
        total = sum(line["actual_j"] for line in case.lines())
        who = dict(zip((49, 50), shown, strict=True))
        case.proofs = {(isp, org): item for (isp, org), item in proofs.items() if who[isp] in (org, "both")}
        for isp, claim in zip((49, 50), claims, strict=True):
            if claim != said[isp]:
                case.open(isp, claim)
        opened = [isp for isp, claim in zip((49, 50), claims, strict=True) if claim != said[isp]]
        verdicts = {v["dispute_id"]: v["verdict"] for v in case.resolve(*[isp for isp in order if isp in opened])}
        case.proofs = proofs
        assert sum(line["actual_j"] for line in case.lines()) == total
        case.finish()
        record = case.record()
        found.append((verdicts, record["lines"], record["buyer_micro_eur"], case.market.balances()))
    assert found[0] == found[1]


@given(ranks=st.dictionaries(st.integers(1, 8), st.integers(0, 3), min_size=1))
def test_only_one_estimate_beside_an_estimate_is_named(ranks: dict[int, int]) -> None:
    for isp in ranks:
        beside, reason = estimate_beside(ranks, isp)
        estimates = [other for other in (isp - 1, isp + 1) if ranks.get(other) == 1]
        if beside is None:
            assert reason and (ranks[isp] != 1 or len(estimates) != 1)
        else:
            assert not reason and ranks[isp] == 1 and [beside] == estimates
