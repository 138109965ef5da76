"""Settlement of an order: proposed by the buyer, accepted or disputed by the aggregator, final once.

Nothing is proposed before the holders of readings had time to anchor them: only what is anchored before the proposal
counts in a dispute. A buyer that does not propose in time (a dispute window later) loses the turn: then the aggregator
may, and the buyer accepts or disputes, so that nobody's money stays in escrow for ever.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market import products
from flexrelay_contracts.market.accounts import Postings, actor_account, balance
from flexrelay_contracts.market.auctions import find
from flexrelay_contracts.market.lines import Metered, Totals, settle_order
from flexrelay_contracts.market.metering import metering_of
from flexrelay_contracts.market.orders import find_order
from flexrelay_contracts.market.payment import pay, pay_difference
from flexrelay_contracts.market.prognosis import power_of
from flexrelay_contracts.market.terms import (
    BUYERS,
    MAX_ISPS,
    PROVIDERS,
    ConnectionId,
    EnergyJ,
    LocalId,
    check_energy,
    put_among_members,
    shared_collection,
    transient,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save
from flexrelay_schemas.canonical import MAX_INTEGER, CanonicalError, parse
from flexrelay_schemas.did import Hash
from flexrelay_schemas.intervals import CalendarDay, IspIndex
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.product import Product
from flexrelay_schemas.quality import Provenance

MAX_CONNECTIONS: Final = 5000
MAX_DETAIL_BYTES: Final = 10_000_000
"""Room for all connections in all ISPs; more could not be read again within a call's time."""
OUT_OF_RANGE: Final = "out_of_range"
_MOST_MICRO_EUR: Final = MAX_INTEGER // 2
"""Of all lines together: the difference of two runs stays exact."""
_MOST_PROPOSED_MICRO_EUR: Final = _MOST_MICRO_EUR // 2
"""The rest is for verdicts: nobody proposes so near to the bound that the right value of another interval does not fit
any more."""

SettlementId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
Rank = Annotated[int, Field(ge=min(Provenance), le=max(Provenance))]


class MeteredIsp(Model):
    """Energy of the aggregator's connections at the congestion point in one ISP, positive = withdrawal.

    `quality` is the lowest rank among them, `windows_hash` the hash over the window revisions that were read.
    """

    isp: IspIndex
    actual_j: EnergyJ
    quality: Rank
    windows_hash: Hash


class Propose(Model):
    """`detail_hash`: SHA-256 of the transient input `detail`. The lines follow the order's ISP list."""

    order_id: LocalId
    run: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")]
    lines: Annotated[Items[MeteredIsp], Field(min_length=1, max_length=MAX_ISPS)]
    detail_hash: Hash


class DetailConnection(Model):
    """One connection's energy and rank of evidence, per line."""

    connection: ConnectionId
    energy_j: Items[EnergyJ]
    quality: Items[Rank]


class Detail(Model):
    """The transient input of a proposal: every connection that was pinned for the order (`metering`)."""

    v: Literal[1] = 1
    salt: Hash
    order_id: LocalId
    run: str
    connections: Annotated[Items[DetailConnection], Field(min_length=1, max_length=MAX_CONNECTIONS)]


class SettlementNamed(Model):
    settlement: SettlementId


def settlement_id(order_id: str, run: str) -> str:
    return f"{order_id}.{run}"


def find_settlement(ctx: ContractContext, settlement: str) -> Record:
    """Refused('unknown_settlement')."""
    message = f"there is no settlement {settlement}"
    return need(ctx, key("settlement", settlement), "unknown_settlement", message, "settlement")


def require_party(caller: Caller, order: Record) -> None:
    """Refused('not_party') unless the caller is the order's buyer or aggregator."""
    if caller.did not in (order["buyer"], order["aggregator"]):
        raise Refused("not_party", f"order {order['order_id']} is between two others", "actor")


def private_detail(ctx: ContractContext, settlement: str, record: Record) -> Detail:
    """The energies per connection. Refused('detail_unavailable') where they did not arrive."""
    data = ctx.get_private(record["collection"], _private_key(settlement))
    if data is None:
        raise Refused("detail_unavailable", f"the detail of settlement {settlement} is not here; wait or ask again")
    return _parse_detail(data, record["detail_hash"])


def recompute(ctx: ContractContext, order: Record, metered: Sequence[Metered]) -> tuple[list[Record], Totals]:
    """Lines and totals from the order's own terms. Refused('out_of_range') beyond what amounts can hold."""
    product = products.at_version(ctx, order["product"], order["version"])
    day = calendar.day(ctx, order["date"])
    baseline = power_of(ctx, find(ctx, order["auction"]), order["aggregator"], order["prognosis_revision"])
    lines, totals = settle_order(product, order, baseline, day.isp_seconds, metered)
    _check_range(lines, _MOST_MICRO_EUR)
    return lines, totals


def _check_range(lines: Sequence[Record], most_micro_eur: int) -> None:
    """Energies and amounts stay exact. Refused('out_of_range')."""
    for index, line in enumerate(lines):
        if max(abs(line["actual_j"]), line["deficiency_j"]) > MAX_INTEGER:
            message = f"ISP {line['isp']}: an energy of {line['actual_j']} J is beyond what a line can hold"
            raise Refused(OUT_OF_RANGE, message, f"lines.{index}.actual_j")
    if sum(abs(line["net_micro_eur"]) for line in lines) > most_micro_eur:
        raise Refused(OUT_OF_RANGE, "the lines are together beyond what a settlement can hold", "lines")


def with_lines(record: Record, lines: Sequence[Record], totals: Totals) -> Record:
    """The settlement with other lines."""
    return {
        **record,
        "lines": list(lines),
        "buyer_micro_eur": totals.buyer_micro_eur,
        "provider_micro_eur": totals.provider_micro_eur,
    }


def _propose(ctx: ContractContext, caller: Caller, args: Propose) -> Result:
    order = find_order(ctx, args.order_id)
    require_party(caller, order)
    product = products.at_version(ctx, order["product"], order["version"])
    _check_run(ctx, product, args)
    day = calendar.day(ctx, order["date"])
    delivered = day.bounds(order["isps"][-1]["isp"])[1]
    first = delivered + product.settlement_after_s * 1000
    now = market_time(ctx)
    if now < first:
        raise Refused("too_early", f"delivery and the time to anchor readings end at {first}, it is {now}", "order_id")
    turn = first + product.dispute_window_s * 1000
    if caller.did != order["buyer"] and (now < turn or args.run != product.settlement_runs[0]):
        raise Refused(
            "not_buyer", f"the buyer proposes; the aggregator may propose the first run after {turn}", "order_id"
        )
    if [line.isp for line in args.lines] != [item["isp"] for item in order["isps"]]:
        raise Refused("isp_list", "the lines follow the order's ISP list", "lines")
    detail = _parse_detail(transient(ctx, "detail", MAX_DETAIL_BYTES), args.detail_hash)
    _check_detail(ctx, order, args, detail)
    _check_energies(day, args, detail)
    lines, totals = recompute(
        ctx, order, [Metered(line.isp, line.actual_j, line.quality, line.windows_hash) for line in args.lines]
    )
    _check_range(lines, _MOST_PROPOSED_MICRO_EUR)
    name = settlement_id(args.order_id, args.run)
    collection = shared_collection(caller, order["buyer_org"], order["aggregator_org"])
    record = {
        "order_id": args.order_id,
        "run": args.run,
        "proposer": caller.did,
        "status": "proposed",
        "market_ms": now,
        "detail_hash": args.detail_hash,
        "collection": collection,
        "open_disputes": 0,
        "disputes": [],
        "corrections": [],
    }
    record = with_lines(record, lines, totals)
    save(ctx, key("settlement", name), record)
    put_among_members(ctx, collection, _private_key(name), transient(ctx, "detail", MAX_DETAIL_BYTES))
    announce(ctx, "settlement.proposed", {"settlement": name, **record})
    return {
        "settlement": name,
        "buyer_micro_eur": totals.buyer_micro_eur,
        "provider_micro_eur": totals.provider_micro_eur,
    }


def _check_run(ctx: ContractContext, product: Product, args: Propose) -> None:
    if args.run not in product.settlement_runs:
        runs = ", ".join(product.settlement_runs)
        raise Refused("run", f"{product.product} has the runs {runs}, not {args.run}", "run")
    if load(ctx, key("settlement", settlement_id(args.order_id, args.run))) is not None:
        raise Refused("settlement_exists", f"run {args.run} of {args.order_id} is proposed already", "run")
    previous = _previous(ctx, product, args.order_id, args.run)
    if previous is not None and previous["status"] != "final":
        raise Refused("run", f"the run before {args.run} is {previous['status']}, not final", "run")


def _previous(ctx: ContractContext, product: Product, order_id: str, run: str) -> Record | None:
    """The settlement of the run before; None for the first run. Refused('run') when it was left out."""
    place = product.settlement_runs.index(run)
    if place == 0:
        return None
    before = product.settlement_runs[place - 1]
    return need(
        ctx, key("settlement", settlement_id(order_id, before)), "run", f"run {before} comes before {run}", "run"
    )


def _parse_detail(data: bytes, detail_hash: str) -> Detail:
    if sha256(data).hexdigest() != detail_hash:
        raise Refused("detail_hash", "the detail does not have the hash that was named", "detail_hash")
    try:
        return Detail.model_validate(parse(data))
    except CanonicalError as error:
        raise Refused("invalid_argument", str(error), "detail") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("detail", *first["loc"]))
        raise Refused("invalid_argument", first["msg"], path) from None


def _check_detail(ctx: ContractContext, order: Record, args: Propose, detail: Detail) -> None:
    """The detail is this proposal's, complete, and adds up to the lines."""
    if detail.order_id != args.order_id or detail.run != args.run:
        raise Refused("detail", "the detail belongs to another settlement", "detail")
    named = [item.connection for item in detail.connections]
    represented = list(metering_of(ctx, order["order_id"]))
    if sorted(named) != sorted(represented):
        odd = sorted(set(named) ^ set(represented)) or sorted(n for n in named if named.count(n) > 1)
        raise Refused("connections", f"the detail and the order's connections differ in {odd[0]}", "detail.connections")
    for index, item in enumerate(detail.connections):
        if len(item.energy_j) != len(args.lines) or len(item.quality) != len(args.lines):
            raise Refused("isp_list", "one energy and one rank per line", f"detail.connections.{index}")
    for index, line in enumerate(args.lines):
        total = sum(item.energy_j[index] for item in detail.connections)
        if total != line.actual_j:
            message = f"ISP {line.isp}: the connections add up to {total} J, the line says {line.actual_j} J"
            raise Refused("detail_sum", message, f"lines.{index}.actual_j")
        if min(item.quality[index] for item in detail.connections) != line.quality:
            raise Refused("quality", "a line has the lowest rank of its connections", f"lines.{index}.quality")


def _check_energies(day: CalendarDay, args: Propose, detail: Detail) -> None:
    """Refused('energy') for more than 10 GW, in a line or of one connection."""
    for index, line in enumerate(args.lines):
        check_energy(day, line.isp, line.actual_j, f"lines.{index}.actual_j")
    for index, item in enumerate(detail.connections):
        for line, energy in zip(args.lines, item.energy_j, strict=True):
            check_energy(day, line.isp, energy, f"detail.connections.{index}.energy_j")


def _accept(ctx: ContractContext, caller: Caller, args: SettlementNamed) -> Result:
    record = find_settlement(ctx, args.settlement)
    order = find_order(ctx, record["order_id"])
    require_party(caller, order)
    if record["proposer"] == caller.did:
        raise Refused("own_proposal", "a settlement is accepted by the other party", "settlement")
    _require_status(record, args.settlement, "proposed")
    _require_undisputed(record, args.settlement)
    save(ctx, key("settlement", args.settlement), {**record, "status": "accepted"})
    announce(ctx, "settlement.accepted", {"settlement": args.settlement})
    return {"settlement": args.settlement, "status": "accepted"}


def _require_status(record: Record, name: str, *statuses: str) -> None:
    if record["status"] not in statuses:
        raise Refused("settlement_status", f"settlement {name} is {record['status']}", "settlement")


def _require_undisputed(record: Record, name: str) -> None:
    if record["open_disputes"]:
        raise Refused("disputed", f"settlement {name} has {record['open_disputes']} open disputes", "settlement")


def _finalise(ctx: ContractContext, caller: Caller, args: SettlementNamed) -> Result:
    record = find_settlement(ctx, args.settlement)
    order = find_order(ctx, record["order_id"])
    require_party(caller, order)
    _require_status(record, args.settlement, "proposed", "accepted")
    _require_undisputed(record, args.settlement)
    product = products.at_version(ctx, order["product"], order["version"])
    ends = record["market_ms"] + product.dispute_window_s * 1000
    if record["status"] == "proposed" and market_time(ctx) < ends:
        message = f"settlement {args.settlement} is not accepted, and may be disputed until {ends}"
        raise Refused("dispute_window", message, "settlement")
    previous = _previous(ctx, product, record["order_id"], record["run"])
    postings = Postings(order["product"])
    if previous is None:
        unpaid = pay(postings, order, record, balance(ctx, actor_account(order["aggregator"])))
    else:
        unpaid = pay_difference(postings, order, previous, record)
    postings.commit(ctx)
    for dispute in record["disputes"]:
        for did in (order["buyer"], order["aggregator"]):
            ctx.purge_private(record["collection"], evidence_key(dispute, did))
    final = {**record, "status": "final", "final_market_ms": market_time(ctx), "unpaid_micro_eur": unpaid}
    save(ctx, key("settlement", args.settlement), final)
    announce(ctx, "settlement.final", {"settlement": args.settlement, **final})
    return {
        "settlement": args.settlement,
        "buyer_micro_eur": record["buyer_micro_eur"],
        "provider_micro_eur": record["provider_micro_eur"],
        "unpaid_micro_eur": unpaid,
    }


def evidence_key(dispute: str, did: str) -> str:
    """Where a party's evidence lies in the parties' collection."""
    return key("dispute_evidence", dispute, did)


def _private_key(settlement: str) -> str:
    return key("settlement_detail", settlement)


def _one(ctx: ContractContext, args: SettlementNamed) -> Any:
    return find_settlement(ctx, args.settlement)


def _detail(ctx: ContractContext, args: SettlementNamed) -> Any:
    """The energies per connection, for the members of the parties' collection."""
    detail = private_detail(ctx, args.settlement, find_settlement(ctx, args.settlement))
    return detail.model_dump(mode="json", exclude={"salt"})


PARTIES: Final = (*BUYERS, *PROVIDERS)

TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("settlement.propose", Propose, _propose, PARTIES, of_parties=True),
    Transaction("settlement.accept", SettlementNamed, _accept, PARTIES, of_parties=True),
    Transaction("settlement.finalise", SettlementNamed, _finalise, PARTIES, of_parties=True),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("settlement.one", SettlementNamed, _one),
    Query("settlement.detail", SettlementNamed, _detail),
)
