"""Positions of balance responsible parties: nominated by the BRP, corrected by what the markets on the ledger do.

key("position", date, brp): the nomination, energy per ISP of the date. key("position_correction", date, brp, ref): what
one trade or order adds to it; the corrections of one ref add up to zero over all BRPs in every ISP. Joules, positive =
withdrawal. A product that makes the *buyer* responsible moves the ordered volume from the provider's BRP to the
buyer's; under *provider* responsibility the provider's BRP renominates and nothing is corrected.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from flexrelay_contracts import calendar, masterdata
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.grants import holds
from flexrelay_contracts.market import orders, products
from flexrelay_contracts.market.clearing import find_clearing
from flexrelay_contracts.market.options import Option
from flexrelay_contracts.market.terms import BUYERS, EnergyJ, LocalId, check_plausible
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import announce, key, load, save, scan
from flexrelay_schemas.did import Did
from flexrelay_schemas.intervals import CalendarDay, LocalDate
from flexrelay_schemas.model import Items, Model

Changes = Mapping[str, Mapping[int, int]]
"""BRP → ISP → joules."""


class Nominate(Model):
    """`energy_j`: the BRP's planned energy per ISP of the whole date; a later nomination replaces the earlier one."""

    date: LocalDate
    energy_j: Annotated[Items[EnergyJ], Field(max_length=1500)]


class Correct(Model):
    """`buyer_brp` takes over what the order moves."""

    order_id: LocalId
    buyer_brp: Did


class PositionOf(Model):
    date: LocalDate
    brp: Did


def brp_of(ctx: ContractContext, connection: str, date: str, field: str = "connection") -> str:
    """The BRP of a connection on a date. Refused('no_brp')."""
    found = masterdata.at(ctx, "brp", connection, date)
    if found is None:
        raise Refused("no_brp", f"connection {connection} has no balance responsible party on {date}", field)
    return str(found["brp"])


def correct(ctx: ContractContext, date: str, ref: str, changes: Changes) -> None:
    """Write the corrections of one trade or order. Raises ValueError when they do not add up to zero in an ISP."""
    totals: dict[int, int] = {}
    for brp in sorted(changes):
        for isp, energy in changes[brp].items():
            totals[isp] = totals.get(isp, 0) + energy
    if any(totals.values()):
        raise ValueError(f"the corrections of {ref} do not add up to zero")
    for brp in sorted(changes):
        parts = [[isp, energy] for isp, energy in sorted(changes[brp].items()) if energy]
        if parts:
            save(ctx, key("position_correction", date, brp, ref), {"energy_j": parts})


def all_of(ctx: ContractContext, day: CalendarDay) -> dict[str, list[int]]:
    """Corrected positions of every BRP that has one on the date, joules per ISP."""
    result: dict[str, list[int]] = {}
    for (_, brp), record in scan(ctx, "position", day.date):
        result[brp] = list(record["energy_j"])
    for (_, brp, _), record in scan(ctx, "position_correction", day.date):
        _add(result.setdefault(brp, [0] * day.isps), record["energy_j"])
    return result


def _add(position: list[int], parts: Sequence[Sequence[int]]) -> None:
    for isp, energy in parts:
        position[isp - 1] += energy


def _nominate(ctx: ContractContext, caller: Caller, args: Nominate) -> Result:
    caller.require_role("brp", "imbalance")
    day = calendar.day(ctx, args.date)
    if market_time(ctx) >= day.start:
        raise Refused("gate_closed", f"positions for {args.date} were due before {day.start}", "date")
    if len(args.energy_j) != day.isps:
        raise Refused("isps", f"{args.date} has {day.isps} ISPs, the position {len(args.energy_j)}", "energy_j")
    check_plausible(day, args.energy_j, "energy_j")
    name = key("position", args.date, caller.did)
    before = load(ctx, name)
    revision = before["revision"] + 1 if before else 1
    save(ctx, name, {"energy_j": list(args.energy_j), "revision": revision})
    announce(ctx, "imbalance.nominated", {"date": args.date, "brp": caller.did, "revision": revision})
    return {"date": args.date, "brp": caller.did, "revision": revision}


def _correct(ctx: ContractContext, caller: Caller, args: Correct) -> Result:
    """The buyer names its BRP for an order of a product under which the buyer is responsible."""
    order = orders.find_order(ctx, args.order_id)
    if order["buyer"] != caller.did:
        raise Refused("not_buyer", f"order {args.order_id} was bought by another", "order_id")
    product = products.at_version(ctx, order["product"], order["version"])
    if product.balance_responsibility != "buyer":
        message = f"under {order['product']} the provider's BRP renominates; nothing is corrected"
        raise Refused("responsibility", message, "order_id")
    if load(ctx, key("order_correction", args.order_id)) is not None:
        raise Refused("corrected", f"the positions are corrected for order {args.order_id} already", "order_id")
    if not holds(ctx, args.buyer_brp, "brp"):
        raise Refused("role", f"{args.buyer_brp} does not hold the role brp", "buyer_brp")
    day = calendar.day(ctx, order["date"])
    changes = _moved(ctx, order, day)
    taken = changes.setdefault(args.buyer_brp, {})
    for item in order["isps"]:
        taken[item["isp"]] = taken.get(item["isp"], 0) - item["power_w"] * day.isp_seconds
    correct(ctx, order["date"], args.order_id, changes)
    save(ctx, key("order_correction", args.order_id), {"buyer_brp": args.buyer_brp})
    announce(ctx, "imbalance.corrected", {"order_id": args.order_id, "date": order["date"], "brps": sorted(changes)})
    return {"order_id": args.order_id, "brps": sorted(changes)}


def _moved(ctx: ContractContext, order: Mapping[str, Any], day: CalendarDay) -> dict[str, dict[int, int]]:
    """The ordered energy by the connections' BRPs; what is lost to whole watts stays with the first of them."""
    percent = order["activation_percent"]
    option = _option(ctx, order)
    changes: dict[str, dict[int, int]] = {}
    for share in option.connections:
        change = changes.setdefault(brp_of(ctx, share.connection, order["date"], "order_id"), {})
        for item, power in zip(option.isps, share.power_w, strict=True):
            energy = abs(power) * percent * day.isp_seconds // 100
            change[item.isp] = change.get(item.isp, 0) + (energy if power > 0 else -energy)
    first = changes[min(changes)]
    for item in order["isps"]:
        isp = item["isp"]
        shared = sum(change.get(isp, 0) for change in changes.values())
        first[isp] = first.get(isp, 0) + item["power_w"] * day.isp_seconds - shared
    return changes


def _option(ctx: ContractContext, order: Mapping[str, Any]) -> Option:
    """The option that became the order, as the clearing took it."""
    offered = find_clearing(ctx, order["auction"])["options"][order["offer_id"]]
    return next(Option.model_validate(item) for item in offered if item["option_id"] == order["option_id"])


def _one(ctx: ContractContext, args: PositionOf) -> Any:
    """What the BRP nominated, each correction by its ref, and the sum."""
    day = calendar.day(ctx, args.date)
    nomination = load(ctx, key("position", args.date, args.brp))
    nominated = list(nomination["energy_j"]) if nomination else [0] * day.isps
    corrections = {
        ref: record["energy_j"] for (_, _, ref), record in scan(ctx, "position_correction", args.date, args.brp)
    }
    corrected = list(nominated)
    for parts in corrections.values():
        _add(corrected, parts)
    return {"nominated_j": nominated, "corrections": corrections, "corrected_j": corrected}


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("imbalance.nominate", Nominate, _nominate, ("brp",)),
    Transaction("imbalance.correct", Correct, _correct, BUYERS),
)
QUERIES: tuple[Query[Any], ...] = (Query("imbalance.position", PositionOf, _one),)
