"""Disputes over one connection's energy in one settled interval: opened with a bond, decided from evidence alone."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from pydantic import ValidationError

from flexrelay_contracts import calendar, identity
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import products
from flexrelay_contracts.market.accounts import Postings, actor_account, balance, bond_account
from flexrelay_contracts.market.corrections import Value, Values, corrections_of, moved, values_of
from flexrelay_contracts.market.judgement import Evidence, Judgement, Question, judge
from flexrelay_contracts.market.lines import metered_of
from flexrelay_contracts.market.metering import metering_of
from flexrelay_contracts.market.orders import find_order
from flexrelay_contracts.market.settlement import (
    OUT_OF_RANGE,
    PARTIES,
    Detail,
    SettlementId,
    evidence_key,
    find_settlement,
    private_detail,
    recompute,
    require_party,
    with_lines,
)
from flexrelay_contracts.market.terms import (
    MAX_POWER_W,
    ConnectionId,
    EnergyJ,
    LocalId,
    check_energy,
    put_among_members,
    transient,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save
from flexrelay_schemas.canonical import CanonicalError, parse
from flexrelay_schemas.did import Hash
from flexrelay_schemas.intervals import IspIndex
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import Product
from flexrelay_schemas.quality import Provenance

MAX_EVIDENCE_BYTES: Final = 500_000
"""Room for two readings of the largest size; to resolve the dispute both sides' are read within one call's time."""


class Open(Model):
    """`claimed_j`: what the connection drew in the ISP, as the challenger says (positive = withdrawal). Of an estimate
    it may be what stands already: once proven, no verdict over the interval beside it moves it."""

    dispute_id: LocalId
    settlement: SettlementId
    isp: IspIndex
    connection: ConnectionId
    claimed_j: EnergyJ


class Show(Model):
    """`evidence_hash`: SHA-256 of the transient input `evidence` (a `judgement.Evidence` document)."""

    dispute_id: LocalId
    evidence_hash: Hash


class DisputeNamed(Model):
    dispute_id: LocalId


def _open(ctx: ContractContext, caller: Caller, args: Open) -> Result:
    if load(ctx, key("dispute", args.dispute_id)) is not None:
        raise Refused("dispute_id", f"dispute id {args.dispute_id} is used", "dispute_id")
    settlement = find_settlement(ctx, args.settlement)
    order = find_order(ctx, settlement["order_id"])
    require_party(caller, order)
    product = products.at_version(ctx, order["product"], order["version"])
    if settlement["status"] != "proposed":
        raise Refused("settlement_status", f"settlement {args.settlement} is {settlement['status']}", "settlement")
    now = market_time(ctx)
    closes = settlement["market_ms"] + product.dispute_window_s * 1000
    if now >= closes:
        raise Refused("window_closed", f"the dispute window closed at {closes}, it is {now}", "settlement")
    if all(line["isp"] != args.isp for line in settlement["lines"]):
        raise Refused("isp", f"ISP {args.isp} is not in settlement {args.settlement}", "isp")
    check_energy(calendar.day(ctx, order["date"]), args.isp, args.claimed_j, "claimed_j")
    values = values_of(private_detail(ctx, args.settlement, settlement), settlement)
    stands = values.at(args.connection, args.isp)
    if stands.energy_j == args.claimed_j and stands.rank != Provenance.ESTIMATED:
        raise Refused("nothing_disputed", "the claim is what stands already", "claimed_j")
    topic = key("disputed", args.settlement, str(args.isp), args.connection)
    if load(ctx, topic) is not None:
        raise Refused("already_disputed", f"ISP {args.isp} of {args.connection} is disputed already", "connection")
    record = {
        "settlement": args.settlement,
        "isp": args.isp,
        "connection": args.connection,
        "claimed_j": args.claimed_j,
        "challenger": caller.did,
        "respondent": _respondent(order, caller.did),
        "bond_micro_eur": product.bond_micro_eur,
        "market_ms": now,
        "evidence_until": now + product.dispute_window_s * 1000,
        "evidence": {},
        "corrections": len(values.corrections),
        "status": "open",
    }
    postings = Postings(order["product"])
    bond = bond_account(caller.did, args.dispute_id)
    postings.transfer(actor_account(caller.did), bond, product.bond_micro_eur, "bond", args.dispute_id)
    postings.commit(ctx)
    save(ctx, key("dispute", args.dispute_id), record)
    save(ctx, topic, {"dispute_id": args.dispute_id})
    changed = {
        "open_disputes": settlement["open_disputes"] + 1,
        "disputes": [*settlement["disputes"], args.dispute_id],
    }
    save(ctx, key("settlement", args.settlement), {**settlement, **changed})
    announce(ctx, "dispute.opened", {"dispute_id": args.dispute_id, **record})
    return {"dispute_id": args.dispute_id, "evidence_until": record["evidence_until"]}


def _respondent(order: Record, challenger: str) -> str:
    other: str = order["aggregator"] if challenger == order["buyer"] else order["buyer"]
    return other


def _find(ctx: ContractContext, dispute_id: str) -> Record:
    record = need(
        ctx, key("dispute", dispute_id), "unknown_dispute", f"there is no dispute {dispute_id}", "dispute_id"
    )  # fmt: skip
    if record["status"] != "open":
        raise Refused("dispute_status", f"dispute {dispute_id} is {record['status']}", "dispute_id")
    return record


def _require_side(caller: Caller, record: Record) -> None:
    if caller.did not in (record["challenger"], record["respondent"]):
        raise Refused("not_party", "the dispute is between two others", "actor")


def _evidence(ctx: ContractContext, caller: Caller, args: Show) -> Result:
    record = _find(ctx, args.dispute_id)
    _require_side(caller, record)
    now = market_time(ctx)
    if now >= record["evidence_until"]:
        raise Refused(
            "window_closed", f"evidence was taken until {record['evidence_until']}, it is {now}", "dispute_id"
        )
    if caller.did in record["evidence"]:
        raise Refused("evidence_exists", f"{caller.did} has shown its evidence", "dispute_id")
    data = transient(ctx, "evidence", MAX_EVIDENCE_BYTES)
    document = _parse(data, args.evidence_hash)
    if document.dispute_id != args.dispute_id:
        raise Refused("evidence", "the evidence is for another dispute", "evidence.dispute_id")
    settlement = find_settlement(ctx, record["settlement"])
    put_among_members(ctx, settlement["collection"], evidence_key(args.dispute_id, caller.did), data)
    shown = {**record["evidence"], caller.did: args.evidence_hash}
    save(ctx, key("dispute", args.dispute_id), {**record, "evidence": shown})
    announced = {"dispute_id": args.dispute_id, "party": caller.did, "evidence_hash": args.evidence_hash}
    announce(ctx, "dispute.evidence", announced)
    return {"dispute_id": args.dispute_id, "evidence_hash": args.evidence_hash}


def _parse(data: bytes, evidence_hash: str) -> Evidence:
    if sha256(data).hexdigest() != evidence_hash:
        raise Refused("evidence_hash", "the evidence does not have the hash that was named", "evidence_hash")
    try:
        return Evidence.model_validate(parse(data))
    except CanonicalError as error:
        raise Refused("invalid_argument", str(error), "evidence") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("evidence", *first["loc"]))
        raise Refused("invalid_argument", first["msg"], path) from None


@dataclass(frozen=True, slots=True)
class _Case:
    """A dispute that is being resolved, and what it is about."""

    dispute_id: str
    record: Record
    settlement: Record
    order: Record
    product: Product
    detail: Detail

    @property
    def place(self) -> tuple[str, int]:
        """Connection and ISP."""
        return self.record["connection"], self.record["isp"]

    @property
    def values(self) -> Values:
        """In force before the verdict."""
        return values_of(self.detail, self.settlement)

    @property
    def disputed_j(self) -> int:
        """What stood when the dispute was opened. Another verdict may have moved it since: who defends it with evidence
        gets it back, so that the order in which two open disputes are resolved decides nothing."""
        first = self.record.get("corrections", 0)  # a dispute from before there were corrections has seen none
        return values_of(self.detail, self.settlement, first).at(*self.place).energy_j


def _resolve(ctx: ContractContext, caller: Caller, args: DisputeNamed) -> Result:
    record = _find(ctx, args.dispute_id)
    _require_side(caller, record)
    now = market_time(ctx)
    if len(record["evidence"]) < 2 and now < record["evidence_until"]:
        message = f"evidence is taken until {record['evidence_until']}, it is {now}"
        raise Refused("evidence_window", message, "dispute_id")
    case = _case(ctx, args.dispute_id, record)
    question = _question(ctx, case)
    judgement = judge(
        ctx, question, _shown(ctx, case, record["challenger"]), record["claimed_j"],
        _shown(ctx, case, record["respondent"]),
    )  # fmt: skip
    judgement, changed, neighbour = _apply(ctx, case, judgement)
    if judgement.verdict == "equivocation":
        identity.suspend(ctx, question.meter, f"two values for one instant, dispute {args.dispute_id}")
    _post(ctx, case, judgement)
    open_disputes = case.settlement["open_disputes"] - 1
    save(ctx, key("settlement", record["settlement"]), {**changed, "open_disputes": open_disputes})
    verdict = {
        "verdict": judgement.verdict,
        "findings": {
            "challenger": {"code": judgement.challenger.code, "rank": judgement.challenger.rank},
            "respondent": {"code": judgement.respondent.code, "rank": judgement.respondent.rank},
        },
        "neighbour": neighbour,
        "resolved_market_ms": now,
    }
    save(ctx, key("dispute", args.dispute_id), {**record, **verdict, "status": "resolved"})
    line = next(line for line in changed["lines"] if line["isp"] == record["isp"])
    public = {"dispute_id": args.dispute_id, "settlement": record["settlement"], **verdict, "line": line}
    announce(ctx, "dispute.resolved", public)
    return public


def _case(ctx: ContractContext, dispute_id: str, record: Record) -> _Case:
    settlement = find_settlement(ctx, record["settlement"])
    order = find_order(ctx, settlement["order_id"])
    product = products.at_version(ctx, order["product"], order["version"])
    detail = private_detail(ctx, record["settlement"], settlement)
    return _Case(dispute_id, record, settlement, order, product, detail)


def _question(ctx: ContractContext, case: _Case) -> Question:
    connection, isp = case.place
    meter = metering_of(ctx, case.order["order_id"]).get(connection, "")
    day = calendar.day(ctx, case.order["date"])
    start, end = day.bounds(isp)
    signed = case.product.verification == "meter_signed"
    least = Provenance.METER_SIGNED if signed else Provenance.GATEWAY_ATTESTED
    most_j = MAX_POWER_W * day.isp_seconds
    return Question(connection, meter, start, end, case.settlement["market_ms"], least, most_j)


def _shown(ctx: ContractContext, case: _Case, did: str) -> Evidence | None:
    hashes = case.record["evidence"]
    if did not in hashes:
        return None
    data = ctx.get_private(case.settlement["collection"], evidence_key(case.dispute_id, did))
    if data is None:
        raise Refused("evidence_unavailable", f"the evidence of {did} is not here; wait or ask again", "dispute_id")
    return _parse(data, hashes[did])


def _post(ctx: ContractContext, case: _Case, judgement: Judgement) -> None:
    """The loser pays the bond's cost; a respondent without the money pays what it has. Unresolved: nobody lost; nor did
    who proposed what the challenger has proven (an estimate that should not be moved any more)."""
    record, dispute_id = case.record, case.dispute_id
    challenger, respondent = actor_account(record["challenger"]), actor_account(record["respondent"])
    bond = bond_account(record["challenger"], dispute_id)
    amount = record["bond_micro_eur"]
    postings = Postings(case.order["product"])
    if judgement.verdict == "respondent":
        postings.transfer(bond, respondent, amount, "bond_lost", dispute_id)
    else:
        postings.transfer(bond, challenger, amount, "bond_back", dispute_id)
    if judgement.verdict == "challenger" and record["claimed_j"] != case.disputed_j:
        cost = min(amount, max(balance(ctx, respondent), 0))
        postings.transfer(respondent, challenger, cost, "dispute_cost", dispute_id)
    postings.commit(ctx)


def _apply(ctx: ContractContext, case: _Case, judgement: Judgement) -> tuple[Judgement, Record, Record]:
    """(judgement, the settlement with the lines as it leaves them, what the neighbouring estimate gives up).

    What is proven may be more than amounts can hold. It proves nothing then, and a fallback that they cannot hold
    either changes nothing: otherwise the dispute could not be resolved, and the settlement never be final.
    """
    unresolved = replace(judgement, verdict="unresolved")
    for outcome in (judgement, unresolved):
        corrections, neighbour = _corrections(case, outcome)
        try:
            return outcome, _changed(ctx, case, outcome, corrections), neighbour
        except Refused as refused:
            if refused.code != OUT_OF_RANGE:
                raise
    return unresolved, case.settlement, neighbour


def _corrections(case: _Case, judgement: Judgement) -> tuple[list[Record], Record]:
    """(what the verdict proves, and what the neighbouring estimate gives up for it; the latter for the record).

    A value that was defended is proven too: it is no estimate any more that another verdict could move.
    """
    values, found = case.values, judgement.proven
    connection, isp = case.place
    if judgement.verdict == "respondent" and found.energy_j == case.disputed_j:
        old = values.at(connection, isp)
        value = Value(found.energy_j, max(old.rank, found.rank))
        stands = [] if value == old else [values.proven(case.dispute_id, connection, isp, value)]
        return stands, {"reason": "not_won"}
    if judgement.verdict not in ("challenger", "respondent"):
        return [], {"reason": "not_won"}
    proven = values.proven(case.dispute_id, connection, isp, Value(found.energy_j, found.rank))
    shift, reason = values.shift(case.dispute_id, connection, isp, proven["delta_j"])
    if shift is None:
        return [proven], {"reason": reason}
    return [proven, shift], {"isp": shift["isp"], "delta_j": shift["delta_j"], "reason": reason}


def _changed(ctx: ContractContext, case: _Case, judgement: Judgement, corrections: list[Record]) -> Record:
    """The settlement with the lines as the verdict leaves them."""
    unproven = judgement.verdict in ("unresolved", "equivocation") and case.product.fallback == "no_delivery"
    moved_j = moved(corrections)
    values = replace(case.values, corrections=(*case.values.corrections, *corrections))
    metered = [
        replace(
            item,
            actual_j=item.actual_j + moved_j.get(item.isp, 0),
            quality=values.line_rank(item.isp) if item.isp in moved_j else item.quality,
            no_delivery=item.no_delivery or (unproven and item.isp == case.record["isp"]),
        )
        for item in metered_of(case.settlement["lines"])
    ]
    kept = {**case.settlement, "corrections": [*corrections_of(case.settlement), *corrections]}
    return with_lines(kept, *recompute(ctx, case.order, metered))


def _one(ctx: ContractContext, args: DisputeNamed) -> Any:
    message = f"there is no dispute {args.dispute_id}"
    return need(ctx, key("dispute", args.dispute_id), "unknown_dispute", message, "dispute_id")


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("dispute.open", Open, _open, PARTIES, of_parties=True),
    Transaction("dispute.evidence", Show, _evidence, PARTIES, of_parties=True),
    Transaction("dispute.resolve", DisputeNamed, _resolve, PARTIES, of_parties=True),
)
QUERIES: tuple[Query[Any], ...] = (Query("dispute.one", DisputeNamed, _one),)
