"""Reservation vectors: the same kilowatt is not sold twice, whatever the product and whoever buys.

One record per (connection, direction, date) holds the reserved watts of every ISP and is read and written by every
reservation, so that two sales of one connection conflict at commit. Each reservation keeps its own vector beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import Record, key, load, save, scan
from flexrelay_schemas.intervals import CalendarDay

Direction = Literal["withdrawal", "feed_in"]
Slot = tuple[str, str]
"""(connection, direction)"""


def qualified(ctx: ContractContext, connection: str, direction: str, day: CalendarDay) -> list[int]:
    """Watts per ISP of the day that may be reserved: the qualification in force, cut by the DSO's temporary limits."""
    in_force: Record | None = None
    for (_, _, valid_from), record in scan(ctx, "qualification", connection, direction):
        if valid_from <= day.date:
            in_force = record
    most = 0
    if in_force is not None and (not in_force["valid_to"] or day.date < in_force["valid_to"]):
        most = in_force["max_w"]
    watts = [most] * day.isps
    limit = load(ctx, key("portfolio_limit", connection, direction, day.date))
    if limit is not None:
        for part in limit["parts"]:
            for isp in range(part["isp_from"], min(part["isp_to"], day.isps) + 1):
                watts[isp - 1] = min(watts[isp - 1], part["max_w"])
    return watts


@dataclass
class _Book:
    """A slot's record as this transaction changes it."""

    key: str
    total_w: list[int]
    before_w: list[int]
    limit_w: list[int] | None = None
    """What is qualified; read only when something is added."""


@dataclass
class Reservations:
    """All changes of one transaction for one date; `commit` checks and writes them (once per transaction)."""

    ctx: ContractContext
    day: CalendarDay
    _books: dict[Slot, _Book] = field(default_factory=dict)
    _holds: dict[tuple[str, str, str], Record | None] = field(default_factory=dict)

    def reserve(
        self, slot: Slot, reservation: str, watts: Sequence[int], *, product: str, buyer: str, parent: str = ""
    ) -> None:
        """Hold `watts` (≥ 0, one per ISP of the day) under the name `reservation`.

        With `parent` the watts are taken out of that reservation's own, as availability that is called: the slot's
        total stays. Refused('reserved' | 'not_qualified' | 'parent') naming the connection.
        """
        if self._hold(slot, reservation) is not None:
            raise Refused("reserved", f"reservation {reservation} exists for {slot[0]}", "connection")
        self._holds[(*slot, reservation)] = {
            "watts": list(watts),
            "product": product,
            "buyer": buyer,
            "parent": parent,
            "called": [0] * self.day.isps,
            "status": "held",
        }
        if parent:
            self._call(slot, parent, watts)
        else:
            self._add(slot, watts)

    def release(self, slot: Slot, reservation: str, keep: Sequence[int] | None = None) -> None:
        """Give back what is held beyond `keep` (None: all) and confirm the rest."""
        held = self._hold(slot, reservation)
        if held is None:
            raise Refused("not_reserved", f"there is no reservation {reservation} for {slot[0]}", "connection")
        kept = list(keep) if keep is not None else [0] * self.day.isps
        if any(k > h for k, h in zip(kept, held["watts"], strict=True)):
            raise Refused("reserved", f"more of {slot[0]} is kept than {reservation} holds", "connection")
        back = [k - h for k, h in zip(kept, held["watts"], strict=True)]
        if held["parent"]:
            self._call(slot, held["parent"], back)
        else:
            self._add(slot, back)
        place = (*slot, reservation)
        self._holds[place] = {**held, "watts": kept, "status": "confirmed"} if any(kept) else None

    def commit(self) -> None:
        """Refused('double_sale', …, connection) when more than the qualified power would be reserved."""
        for slot in sorted(self._books):
            book = self._books[slot]
            for isp, total in enumerate(book.total_w, 1):
                if total > book.before_w[isp - 1] and book.limit_w is not None and total > book.limit_w[isp - 1]:
                    most = book.limit_w[isp - 1]
                    code = "not_qualified" if most == 0 else "double_sale"
                    message = f"{slot[0]} has {most} W of {slot[1]} in ISP {isp}, {total} W would be sold"
                    raise Refused(code, message, "connection")
            save(self.ctx, book.key, {"reserved_w": book.total_w})
        for place in sorted(self._holds):
            record, name = self._holds[place], self._hold_key(*place)
            if record is None:
                self.ctx.delete(name)
            else:
                save(self.ctx, name, record)

    def _add(self, slot: Slot, watts: Sequence[int]) -> None:
        book = self._book(slot)
        if book.limit_w is None and any(w > 0 for w in watts):
            book.limit_w = qualified(self.ctx, *slot, self.day)
        book.total_w = [total + w for total, w in zip(book.total_w, watts, strict=True)]

    def _call(self, slot: Slot, parent: str, watts: Sequence[int]) -> None:
        held = self._hold(slot, parent)
        if held is None or held["parent"]:
            raise Refused("parent", f"there is no reservation {parent} of {slot[0]} to call from", "parent")
        called = [c + w for c, w in zip(held["called"], watts, strict=True)]
        if any(c > h for c, h in zip(called, held["watts"], strict=True)):
            raise Refused("double_sale", f"more of {slot[0]} would be called than {parent} holds", "connection")
        self._holds[(*slot, parent)] = {**held, "called": called}

    def _book(self, slot: Slot) -> _Book:
        if slot not in self._books:
            name = key("reservation", *slot, self.day.date)
            record = load(self.ctx, name)
            watts = list(record["reserved_w"]) if record else [0] * self.day.isps
            self._books[slot] = _Book(name, watts, watts)
        return self._books[slot]

    def _hold(self, slot: Slot, reservation: str) -> Record | None:
        place = (*slot, reservation)
        if place not in self._holds:
            return load(self.ctx, self._hold_key(*place))
        return self._holds[place]

    def _hold_key(self, connection: str, direction: str, reservation: str) -> str:
        return key("reservation_of", connection, direction, self.day.date, reservation)
