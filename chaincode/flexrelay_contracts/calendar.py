"""The market's calendar: local dates with their UTC start and number of ISPs, published once and never changed.

Days are in market time. No time-zone data is needed inside a contract: daylight saving shows as 92 or 100 ISPs.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, load_many, need, save, scan
from flexrelay_schemas.intervals import CalendarDay, LocalDate
from flexrelay_schemas.model import Items, Model

_FARTHEST_OFFSET_MS = 14 * 3_600_000
"""Time zones lie within UTC-12 … UTC+14, so local midnight is at most that far from UTC midnight."""


class Publish(Model):
    days: Annotated[Items[CalendarDay], Field(min_length=1, max_length=400)]


class DayRange(Model):
    """Dates in [first, last]; empty: no bound."""

    first: LocalDate | Literal[""] = ""
    last: LocalDate | Literal[""] = ""


def day(ctx: ContractContext, local_date: str) -> CalendarDay:
    """The published day. Refused('calendar') when the date is not in the calendar."""
    record = need(ctx, key("calendar", local_date), "calendar", f"{local_date} is not in the calendar", "date")
    return _day(record)


def date_at(ctx: ContractContext, market_ms: int) -> CalendarDay:
    """The published day whose [start, end) holds the instant. Refused('calendar')."""
    try:
        utc = datetime.fromtimestamp(market_ms // 1000, UTC).date()
        near = [(utc + timedelta(days=step)).isoformat() for step in (-1, 0, 1)]
    except (ValueError, OverflowError, OSError):
        near = []
    for record in load_many(ctx, [key("calendar", name) for name in near]):
        if record is not None and (found := _day(record)).start <= market_ms < found.end:
            return found
    raise Refused("calendar", f"market time {market_ms} is not in the calendar", "date")


def dates_of(ctx: ContractContext, market_ms: int) -> list[str]:
    """The published dates that an instant belongs to: two at midnight, which ends one day and begins the next."""
    found: list[str] = []
    for instant in (market_ms - 1, market_ms):
        try:
            date_ = date_at(ctx, instant).date
        except Refused:
            continue
        found += [] if date_ in found else [date_]
    return found


def today(ctx: ContractContext) -> CalendarDay:
    """The published day of the transaction's market time. Refused('calendar')."""
    return date_at(ctx, market_time(ctx))


def next_date(local_date: str) -> str:
    """The date after. Refused('invalid_argument') for what is no date."""
    return (parse_date(local_date) + timedelta(days=1)).isoformat()


def parse_date(text: str, field: str = "date") -> date:
    """Refused('invalid_argument') for what is no date of the Gregorian calendar."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Refused("invalid_argument", f"{text[:20]!r} is not a date", field) from None


def _publish(ctx: ContractContext, caller: Caller, args: Publish) -> Result:
    caller.require_role("market_operator", "*")
    head = load(ctx, key("calendar_head"))
    last_date, last_end = (head["last"], head["end"]) if head else ("", 0)
    for index, item in enumerate(args.days):
        where = f"days.{index}"
        midnight = int(datetime.combine(parse_date(item.date, where), datetime.min.time(), UTC).timestamp()) * 1000
        if last_date and item.date <= last_date:
            raise Refused("calendar_published", f"{item.date} is published already and never changes", where)
        if last_date and (item.date != next_date(last_date) or item.start != last_end):
            raise Refused("calendar_gap", f"after {last_date} comes {next_date(last_date)} from {last_end}", where)
        if abs(item.start - midnight) > _FARTHEST_OFFSET_MS:
            raise Refused("invalid_argument", f"{item.start} is no local midnight of {item.date}", f"{where}.start")
        last_date, last_end = item.date, item.end
        save(ctx, key("calendar", item.date), item.model_dump())
    first = head["first"] if head else args.days[0].date
    save(ctx, key("calendar_head"), {"first": first, "last": last_date, "end": last_end})
    announce(ctx, "calendar.published", {"first": args.days[0].date, "last": last_date})
    return {"first": first, "last": last_date}


def _days(ctx: ContractContext, args: DayRange) -> list[Record]:
    return [
        record
        for (name,), record in scan(ctx, "calendar")
        if (not args.first or name >= args.first) and (not args.last or name <= args.last)
    ]


def _day(record: Record) -> CalendarDay:
    return CalendarDay.model_validate({name: value for name, value in record.items() if name != "v"})


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("calendar.publish", Publish, _publish, roles=("market_operator",)),
)
QUERIES: tuple[Query[Any], ...] = (Query("calendar.days", DayRange, _days),)
