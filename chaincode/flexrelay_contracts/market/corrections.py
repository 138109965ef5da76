"""What the verdicts of a settlement's disputes say about single connections, beside the detail that was proposed.

A proposal interpolates a register that is missing between two intervals: both are estimates, and their sum is right.
When one of the two is proven to be another value, the other must take up the difference, or the same energy is settled
twice. A settlement keeps its corrections in the order of the verdicts; detail and corrections give the values in force.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from flexrelay_contracts.market.settlement import Detail, DetailConnection
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import Record
from flexrelay_schemas.quality import Provenance

NOT_ESTIMATED: Final = "not_estimated"
NO_ESTIMATE_BESIDE: Final = "no_estimate_beside"
TWO_ESTIMATES_BESIDE: Final = "two_estimates_beside"
Reason = Literal["", "not_estimated", "no_estimate_beside", "two_estimates_beside"]


@dataclass(frozen=True, slots=True)
class Value:
    """One connection's energy in one ISP, positive = withdrawal, and its rank of evidence."""

    energy_j: int
    rank: int


@dataclass(frozen=True, slots=True)
class Values:
    """The detail of a settlement over its ISP list, with corrections `{connection, isp, delta_j, rank, …}`."""

    detail: Detail
    isps: tuple[int, ...]
    corrections: tuple[Mapping[str, Any], ...] = ()

    def at(self, connection: str, isp: int) -> Value:
        """Refused('connection') when the connection is not in the detail."""
        for item in self.detail.connections:
            if item.connection == connection:
                return self._value(item, isp)
        raise Refused(
            "connection", f"connection {connection} is not in settlement {self.detail.order_id}.{self.detail.run}",
            "connection",
        )  # fmt: skip

    def line_rank(self, isp: int) -> int:
        """The lowest rank among all connections."""
        return min(self._value(item, isp).rank for item in self.detail.connections)

    def _value(self, item: DetailConnection, isp: int) -> Value:
        place = self.isps.index(isp)
        energy, rank = item.energy_j[place], int(item.quality[place])
        for correction in self.corrections:
            if correction["isp"] == isp and correction["connection"] == item.connection:
                energy, rank = energy + correction["delta_j"], correction["rank"]
        return Value(energy, rank)

    def proven(self, dispute_id: str, connection: str, isp: int, value: Value) -> Record:
        """The correction that makes `value` this connection's."""
        delta = value.energy_j - self.at(connection, isp).energy_j
        return _correction(dispute_id, connection, isp, delta, value.rank)

    def shift(self, dispute_id: str, connection: str, isp: int, delta_j: int) -> tuple[Record | None, Reason]:
        """(the neighbour's correction, why there is none) when the ISP's estimate rises by `delta_j`."""
        ranks = {number: self.at(connection, number).rank for number in self.isps}
        neighbour, reason = estimate_beside(ranks, isp)
        if neighbour is None:
            return None, reason
        return _correction(dispute_id, connection, neighbour, -delta_j, ranks[neighbour]), reason


def _correction(dispute_id: str, connection: str, isp: int, delta_j: int, rank: int) -> Record:
    return {"dispute_id": dispute_id, "connection": connection, "isp": isp, "delta_j": delta_j, "rank": rank}


def estimate_beside(ranks: Mapping[int, int], isp: int) -> tuple[int | None, Reason]:
    """(ISP that shares the missing register with an estimated `isp`, why it is not known); `ranks` by ISP.

    The neighbour stays an estimate: whether its other end is proven does not stand in the evidence. With estimates on
    both sides either end may have been missing, and nobody's energy is moved on a guess.
    """
    if ranks[isp] != Provenance.ESTIMATED:
        return None, NOT_ESTIMATED
    beside = [number for number in (isp - 1, isp + 1) if ranks.get(number) == Provenance.ESTIMATED]
    if len(beside) == 1:
        return beside[0], ""
    return None, TWO_ESTIMATES_BESIDE if beside else NO_ESTIMATE_BESIDE


def corrections_of(settlement: Record) -> list[Record]:
    """Empty too for a settlement that was proposed before there were any."""
    return list(settlement.get("corrections", []))


def values_of(detail: Detail, settlement: Record, first: int | None = None) -> Values:
    """The values in force, or those after the `first` corrections only."""
    isps = tuple(line["isp"] for line in settlement["lines"])
    return Values(detail, isps, tuple(corrections_of(settlement)[:first]))


def moved(corrections: Sequence[Record]) -> dict[int, int]:
    """ISP → joules that the corrections add to its line."""
    result: dict[int, int] = {}
    for correction in corrections:
        result[correction["isp"]] = result.get(correction["isp"], 0) + correction["delta_j"]
    return result
