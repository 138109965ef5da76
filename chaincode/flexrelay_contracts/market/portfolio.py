"""What connections are qualified for, by the DSO that they hang on, and what of it is reserved."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from flexrelay_contracts import calendar
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.reservations import Direction, qualified
from flexrelay_contracts.market.terms import ConnectionId, require_dso_of
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import announce, key, load, save, scan
from flexrelay_schemas.intervals import IspIndex, LocalDate
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.product import PowerW


class Qualify(Model):
    """From `valid_from` on (until `valid_to`, exclusive; empty: open) the connection may sell up to `max_w`."""

    connection: ConnectionId
    direction: Direction
    max_w: PowerW
    valid_from: LocalDate
    valid_to: LocalDate | Literal[""] = ""


class LimitPart(Model):
    """ISPs from … to (inclusive) with at most `max_w`."""

    isp_from: IspIndex
    isp_to: IspIndex
    max_w: PowerW


class Limit(Model):
    """A temporary limit for one date; it replaces the earlier one. What is sold already stays sold."""

    connection: ConnectionId
    direction: Direction
    date: LocalDate
    parts: Annotated[Items[LimitPart], Field(max_length=100)]
    reason: Annotated[str, StringConstraints(max_length=200)] = ""


class Slot(Model):
    connection: ConnectionId
    direction: Direction
    date: LocalDate


def _qualify(ctx: ContractContext, caller: Caller, args: Qualify) -> Result:
    calendar.parse_date(args.valid_from, "valid_from")
    if args.valid_to and args.valid_to <= args.valid_from:
        raise Refused("dates", f"valid_to {args.valid_to} is not after {args.valid_from}", "valid_to")
    require_dso_of(ctx, caller, args.connection, args.valid_from)
    record = {"max_w": args.max_w, "valid_to": args.valid_to, "dso": caller.did}
    save(ctx, key("qualification", args.connection, args.direction, args.valid_from), record)
    announce(ctx, "portfolio.qualified", {**args.model_dump(), "dso": caller.did})
    return {"connection": args.connection, "direction": args.direction, "max_w": args.max_w}


def _limit(ctx: ContractContext, caller: Caller, args: Limit) -> Result:
    day = calendar.day(ctx, args.date)
    for index, part in enumerate(args.parts):
        if not part.isp_from <= part.isp_to <= day.isps:
            raise Refused("isp", f"ISPs {part.isp_from}–{part.isp_to} are not in {args.date}", f"parts.{index}.isp_to")
    require_dso_of(ctx, caller, args.connection, args.date)
    record = {"parts": [part.model_dump() for part in args.parts], "dso": caller.did, "reason": args.reason}
    save(ctx, key("portfolio_limit", args.connection, args.direction, args.date), record)
    announce(ctx, "portfolio.limited", {**args.model_dump(), "dso": caller.did})
    return {"connection": args.connection, "direction": args.direction, "date": args.date}


def _reserved(ctx: ContractContext, args: Slot) -> Any:
    day = calendar.day(ctx, args.date)
    record = load(ctx, key("reservation", args.connection, args.direction, args.date))
    holds = {
        parts[-1]: {name: held[name] for name in ("watts", "called", "product", "buyer", "parent", "status")}
        for parts, held in scan(ctx, "reservation_of", args.connection, args.direction, args.date)
    }
    return {
        "qualified_w": qualified(ctx, args.connection, args.direction, day),
        "reserved_w": record["reserved_w"] if record else [0] * day.isps,
        "holds": holds,
    }


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("portfolio.qualify", Qualify, _qualify, ("dso",)),
    Transaction("portfolio.limit", Limit, _limit, ("dso",)),
)
QUERIES: tuple[Query[Any], ...] = (Query("portfolio.reserved", Slot, _reserved),)
