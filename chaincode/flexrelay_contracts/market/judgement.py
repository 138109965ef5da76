"""How a dispute is decided from evidence, in a fixed order and without judgement (markets.md, "Disputes").

Each party may show the meter's registers at both ends of the interval. A side counts when its roots were anchored
before the settlement was proposed, its readings are included, signed by keys valid then (or attested by a gateway that
was entrusted) and of the connection's own meter, and the registers differ by exactly the energy that the challenger
claims, or by any energy for the respondent: it defends what is true, not what was proposed, so that nobody keeps a
wrong proposal by disputing it first. Of two sides that count the higher rank wins: signed by the meter before attested
by a gateway. Nothing provable on either side leaves it unresolved. A meter that signed two values for one instant ends
the dispute as equivocation; a gateway that attested two loses its side.
"""

from dataclasses import dataclass
from typing import Literal

from flexrelay_contracts import evidence
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import key, load
from flexrelay_schemas.did import Hash
from flexrelay_schemas.evidence import InclusionProof
from flexrelay_schemas.model import Model
from flexrelay_schemas.quality import Provenance

Verdict = Literal["challenger", "respondent", "unresolved", "equivocation"]


class Evidence(Model):
    """What a party shows: the registers at the start and at the end of the interval; the hash is salted."""

    v: Literal[1] = 1
    salt: Hash
    dispute_id: str
    start: InclusionProof
    end: InclusionProof


@dataclass(frozen=True, slots=True)
class Question:
    """What is in dispute: energy of `connection`, which `meter` was pinned to measure, between two instants of market
    time, anchored before `anchored_before`. More than `most_j` nobody proves: a register is any number that a gateway
    attests."""

    connection: str
    meter: str
    start_ms: int
    end_ms: int
    anchored_before: int
    least_rank: Provenance
    most_j: int


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` "counts", or the first thing that was wrong; where it counts, `rank` of the weaker reading and the energy
    that is proven."""

    code: str
    rank: int = -1
    energy_j: int = 0

    @property
    def counts(self) -> bool:
        return self.code == "counts"


NOTHING = Finding("no_evidence")
EQUIVOCATION = Finding("equivocation")


@dataclass(frozen=True, slots=True)
class Judgement:
    """`verdict` "equivocation": the meter signed two values for one instant. `proven`: the finding that decides, of
    "challenger" (its energy is the claim, whoever proved it) and "respondent"."""

    verdict: Verdict
    challenger: Finding
    respondent: Finding
    proven: Finding = NOTHING


def judge(
    ctx: ContractContext,
    question: Question,
    challenger: Evidence | None,
    claimed_j: int,
    respondent: Evidence | None,
) -> Judgement:
    """Decide between the challenger's claim and what the respondent shows."""
    first, shown = _examine(ctx, question, challenger)
    if first.counts and first.energy_j != claimed_j:
        first = Finding("register_difference")
    second, also_shown = _examine(ctx, question, respondent)
    two_faced = _equivocators(question.meter, [*shown, *also_shown])
    if any(item.signer in two_faced for item in shown):
        first = EQUIVOCATION
    if any(item.signer in two_faced for item in also_shown):
        second = EQUIVOCATION
    if question.meter in two_faced:
        return Judgement("equivocation", first, second)
    if second.counts and second.energy_j == claimed_j:  # the other side's own evidence says so
        return Judgement("challenger", first, second, max(first, second, key=lambda finding: finding.rank))
    if first.counts and first.rank > second.rank:
        return Judgement("challenger", first, second, first)
    if second.counts and second.rank > first.rank:
        return Judgement("respondent", first, second, second)
    return Judgement("unresolved", first, second)


def _examine(
    ctx: ContractContext, question: Question, item: Evidence | None
) -> tuple[Finding, list[evidence.Included]]:
    """(finding, readings whose signature holds and that were anchored in time)."""
    if item is None:
        return NOTHING, []
    shown: list[evidence.Included] = []
    wrong = ""
    for proof in (item.start, item.end):
        try:
            shown.append(_included_in_time(ctx, proof, question))
        except Refused as refusal:
            wrong = wrong or refusal.code
    if wrong:
        return Finding(wrong), shown
    start, end = shown
    if start.did != question.meter or end.did != question.meter:
        return Finding("other_meter"), shown
    if (start.observed_at, end.observed_at) != (question.start_ms, question.end_ms):
        return Finding("other_instant"), shown
    rank = min(start.provenance, end.provenance)
    if rank < question.least_rank:
        return Finding("rank_too_low"), shown
    energy = _difference(start.registers, end.registers)
    if energy is None:
        return Finding("register_difference"), shown
    if abs(energy) > question.most_j:
        return Finding("energy"), shown
    return Finding("counts", int(rank), energy), shown


def _included_in_time(ctx: ContractContext, proof: InclusionProof, question: Question) -> evidence.Included:
    """The time of the anchor is looked at first: what came late is not examined any further."""
    anchor = load(ctx, key("anchor", proof.org, proof.anchor_id))
    if anchor is not None and anchor["market_ms"] >= question.anchored_before:
        raise Refused("anchored_late", "the anchor is not older than the proposal", "anchor_id")
    return evidence.included(ctx, proof, question.connection)


def _difference(start: dict[str, int], end: dict[str, int]) -> int | None:
    """Energy between two register readings, positive = withdrawal; None when a register is missing at one end."""
    total = 0
    known = False
    for name, sign in (("import_j", 1), ("export_j", -1)):
        if (name in start) != (name in end):
            return None
        if name in start:
            known = True
            if end[name] < start[name]:
                return None
            total += sign * (end[name] - start[name])
    return total if known else None


def _equivocators(meter: str, shown: list[evidence.Included]) -> frozenset[str]:
    """Who signed two values of one register of the meter for one instant."""
    seen: dict[tuple[str, int, str], int] = {}
    found = set()
    for item in shown:
        if item.did == meter:
            for name, value in sorted(item.registers.items()):
                if seen.setdefault((item.signer, item.observed_at, name), value) != value:
                    found.add(item.signer)
    return frozenset(found)
