"""Imbalance settlement: per BRP and ISP allocated − position, at one price; ex post, once per (date, run).

I = allocated − corrected position (`positions`); positive = more withdrawal than planned, short (EBGL's sign is the
opposite). A BRP pays I × price to the operator's imbalance account and gets it where it is negative. Energy closes in
every ISP: what the DSO allocates to BRPs and its losses is the transformer's reading, and losses have a BRP too, so
that the BRPs' imbalances add up to the system's. A later run posts only the difference to the run before.
"""

from typing import Annotated, Any

from pydantic import Field

from flexrelay_contracts import calendar, masterdata
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.grants import holds
from flexrelay_contracts.market import positions
from flexrelay_contracts.market.accounts import ROUNDING, Postings, brp_account, imbalance_account
from flexrelay_contracts.market.terms import CongestionPoint, EnergyJ, check_plausible, require_operator_of
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules.settlement import SCALE
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, load_many, need, save
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.did import Did, Hash
from flexrelay_schemas.intervals import CalendarDay, LocalDate
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.product import PriceNanoEurPerWh
from flexrelay_schemas.quality import Provenance

MARKET = "imbalance"
"""The name under which roles are granted for it and its postings are journalled."""

Run = Annotated[int, Field(ge=1, le=99)]
Energies = Annotated[Items[EnergyJ], Field(max_length=1500)]


class Share(Model):
    """What one BRP's connections at the congestion point took, per ISP."""

    brp: Did
    energy_j: Energies


class Allocate(Model):
    """`quality`: the lowest rank among the values; `evidence_hash`: over the window revisions that they come from.

    `transformer_j` is positive when the point draws from the grid above, `losses_j` are `losses_brp`'s.
    """

    date: LocalDate
    run: Run
    congestion_point: CongestionPoint
    shares: Annotated[Items[Share], Field(max_length=1000)]
    losses_brp: Did
    losses_j: Energies
    transformer_j: Energies
    quality: Annotated[int, Field(ge=min(Provenance), le=max(Provenance))]
    evidence_hash: Hash


class Settle(Model):
    """One price per ISP of the date; `areas` are all congestion points of the system, the same in every run."""

    date: LocalDate
    run: Run
    areas: Annotated[Items[CongestionPoint], Field(min_length=1, max_length=1000)]
    price_nano_eur_per_wh: Annotated[Items[PriceNanoEurPerWh], Field(max_length=1500)]


class RunOf(Model):
    date: LocalDate
    run: Run


class AllocationOf(Model):
    date: LocalDate
    run: Run
    congestion_point: CongestionPoint


def _allocation_key(date: str, point: str, run: int) -> str:
    return key("allocation", date, point, f"{run:02d}")


def _run_key(date: str, run: int) -> str:
    return key("imbalance_run", date, f"{run:02d}")


def _allocate(ctx: ContractContext, caller: Caller, args: Allocate) -> Result:
    day = calendar.day(ctx, args.date)
    if market_time(ctx) < day.end:
        raise Refused("too_early", f"{args.date} ends at {day.end}", "date")
    require_operator_of(ctx, caller, args.congestion_point, args.date)
    if load(ctx, _run_key(args.date, args.run)) is not None:
        raise Refused("run_settled", f"run {args.run} of {args.date} is settled; allocate for the next one", "run")
    name = _allocation_key(args.date, args.congestion_point, args.run)
    if load(ctx, name) is not None:
        raise Refused("allocated", f"{args.congestion_point} is allocated for run {args.run} already", "run")
    _check_brps(ctx, args)
    _check_closed(args, day)
    shares = {share.brp: list(share.energy_j) for share in args.shares}
    losses = shares.setdefault(args.losses_brp, [0] * day.isps)
    shares[args.losses_brp] = [a + b for a, b in zip(losses, args.losses_j, strict=True)]
    record = {
        "shares": shares,
        "losses_brp": args.losses_brp,
        "losses_j": list(args.losses_j),
        "transformer_j": list(args.transformer_j),
        "quality": args.quality,
        "evidence_hash": args.evidence_hash,
        "dso": caller.did,
    }
    save(ctx, name, record)
    head = {"date": args.date, "run": args.run, "congestion_point": args.congestion_point}
    announce(ctx, "imbalance.allocated", {**head, "quality": args.quality, "evidence_hash": args.evidence_hash})
    return head


def _check_brps(ctx: ContractContext, args: Allocate) -> None:
    """Exactly the BRPs of the connections at the point, each once; the losses' BRP holds the role."""
    named = [share.brp for share in args.shares]
    for index, brp in enumerate(named):
        if named.index(brp) != index:
            raise Refused("duplicate", f"{brp} stands twice", f"shares.{index}.brp")
    connections = masterdata.connections_at(ctx, args.congestion_point, args.date)
    wanted = {positions.brp_of(ctx, place["connection"], args.date, "shares") for place in connections}
    for index, brp in enumerate(named):
        if brp not in wanted:
            message = f"{brp} has no connection at {args.congestion_point} on {args.date}"
            raise Refused("unknown_brp", message, f"shares.{index}.brp")
    for brp in sorted(wanted - set(named)):
        raise Refused("missing_brp", f"nothing is allocated to {brp}", "shares")
    if not holds(ctx, args.losses_brp, "brp"):
        raise Refused("role", f"{args.losses_brp} does not hold the role brp", "losses_brp")


def _check_closed(args: Allocate, day: CalendarDay) -> None:
    """Σ allocated + losses = transformer, in every ISP."""
    columns = [(f"shares.{index}.energy_j", share.energy_j) for index, share in enumerate(args.shares)]
    columns += [("losses_j", args.losses_j), ("transformer_j", args.transformer_j)]
    for field, energies in columns:
        if len(energies) != day.isps:
            raise Refused("isps", f"{args.date} has {day.isps} ISPs, not {len(energies)}", field)
        check_plausible(day, energies, field)
    for isp, reading in enumerate(args.transformer_j, 1):
        total = args.losses_j[isp - 1] + sum(share.energy_j[isp - 1] for share in args.shares)
        if total != reading:
            message = f"ISP {isp}: allocated and losses are {total} J, the transformer says {reading} J"
            raise Refused("energy_not_closed", message, f"transformer_j.{isp - 1}")


def _settle(ctx: ContractContext, caller: Caller, args: Settle) -> Result:
    caller.require_role("tso", MARKET)
    day = calendar.day(ctx, args.date)
    if len(args.price_nano_eur_per_wh) != day.isps:
        message = f"{args.date} has {day.isps} ISPs, not {len(args.price_nano_eur_per_wh)}"
        raise Refused("isps", message, "price_nano_eur_per_wh")
    before = _check_run(ctx, caller, args)
    allocations = [_newest(ctx, args, index) for index in range(len(args.areas))]
    held = positions.all_of(ctx, day)
    brps = sorted(held.keys() | {brp for found in allocations for brp in found["shares"]})
    imbalances = {brp: _imbalance(day, brp, held, allocations) for brp in brps}
    system = [sum(column) for column in zip(*(imbalances[brp] for brp in brps), strict=True)]
    _check_system(day, system, held, allocations)
    prices = args.price_nano_eur_per_wh
    owed = {brp: sum(i * p for i, p in zip(imbalances[brp], prices, strict=True)) for brp in brps}
    if 2 * sum(abs(amount) for amount in owed.values()) // SCALE > MAX_INTEGER:  # a later run posts the difference
        raise Refused("out_of_range", "at these prices the amounts are beyond 2^53 µ€", "price_nano_eur_per_wh")
    cash = {brp: -owed[brp] // SCALE for brp in brps}
    operator_cash = sum(owed.values()) // SCALE
    record = {
        "tso": caller.did,
        "areas": sorted(args.areas),
        "price_nano_eur_per_wh": list(prices),
        "imbalance_j": imbalances,
        "system_imbalance_j": system,
        "cash_micro_eur": cash,
        "operator_cash_micro_eur": operator_cash,
        "rounding_micro_eur": -sum(cash.values()) - operator_cash,
    }
    _post(ctx, args, caller.did, before, record)
    save(ctx, _run_key(args.date, args.run), record)
    announce(ctx, "imbalance.settled", {"date": args.date, "run": args.run, **record})
    names = ("cash_micro_eur", "operator_cash_micro_eur", "rounding_micro_eur")
    return {"date": args.date, "run": args.run, **{name: record[name] for name in names}}


def _check_run(ctx: ContractContext, caller: Caller, args: Settle) -> Record | None:
    """The run before, None for the first. Refused('run_settled' | 'run' | 'areas' | 'not_tso')."""
    if load(ctx, _run_key(args.date, args.run)) is not None:
        raise Refused("run_settled", f"run {args.run} of {args.date} is settled already", "run")
    if len(set(args.areas)) != len(args.areas):
        raise Refused("duplicate", "an area stands twice", "areas")
    if args.run == 1:
        return None
    before = need(ctx, _run_key(args.date, args.run - 1), "run", f"run {args.run - 1} comes first", "run")
    if before["tso"] != caller.did:
        raise Refused("not_tso", f"{args.date} is settled by {before['tso']}", "date")
    if before["areas"] != sorted(args.areas):
        raise Refused("areas", f"the run before had the areas {', '.join(before['areas'])}", "areas")
    return before


def _newest(ctx: ContractContext, args: Settle, index: int) -> Record:
    """The area's allocation for this run, or the newest before. Refused('not_allocated')."""
    area = args.areas[index]
    names = [_allocation_key(args.date, area, run) for run in range(args.run, 0, -1)]
    for found in load_many(ctx, names):
        if found is not None:
            return found
    raise Refused("not_allocated", f"{area} is not allocated for {args.date}", f"areas.{index}")


def _imbalance(day: CalendarDay, brp: str, held: dict[str, list[int]], allocations: list[Record]) -> list[int]:
    """Allocated − position per ISP."""
    result = [-energy for energy in held.get(brp, [0] * day.isps)]
    for found in allocations:
        for index, energy in enumerate(found["shares"].get(brp, ())):
            result[index] += energy
    return result


def _check_system(day: CalendarDay, system: list[int], held: dict[str, list[int]], allocations: list[Record]) -> None:
    """The BRPs' imbalances are the transformers' readings less all positions: computed a second way."""
    for index in range(day.isps):
        drawn = sum(found["transformer_j"][index] for found in allocations)
        planned = sum(position[index] for position in held.values())
        if system[index] != drawn - planned:
            raise AssertionError(f"ISP {index + 1}: BRPs' imbalances {system[index]} J, system {drawn - planned} J")


def _post(ctx: ContractContext, args: Settle, tso: str, before: Record | None, after: Record) -> None:
    """The difference to what the run before posted."""
    old = before["cash_micro_eur"] if before else {}
    postings = Postings(MARKET)
    ref = f"{args.date}/{args.run}"
    reason = "resettlement" if before else "imbalance"
    for brp in sorted(old.keys() | after["cash_micro_eur"].keys()):
        change = after["cash_micro_eur"].get(brp, 0) - old.get(brp, 0)
        postings.transfer(imbalance_account(tso), brp_account(brp), change, reason, ref)
    rounding = after["rounding_micro_eur"] - (before["rounding_micro_eur"] if before else 0)
    postings.transfer(imbalance_account(tso), ROUNDING, rounding, "rounding", ref)
    postings.commit(ctx)


def _one(ctx: ContractContext, args: RunOf) -> Any:
    message = f"run {args.run} of {args.date} is not settled"
    return need(ctx, _run_key(args.date, args.run), "not_settled", message, "run")


def _allocation(ctx: ContractContext, args: AllocationOf) -> Any:
    message = f"{args.congestion_point} is not allocated for run {args.run} of {args.date}"
    return need(
        ctx, _allocation_key(args.date, args.congestion_point, args.run), "not_allocated", message, "congestion_point"
    )


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("imbalance.allocate", Allocate, _allocate, ("dso",)),
    Transaction("imbalance.settle", Settle, _settle, ("tso",)),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("imbalance.run", RunOf, _one),
    Query("imbalance.allocation", AllocationOf, _allocation),
)
