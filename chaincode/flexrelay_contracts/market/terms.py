"""Names, types and checks that the market contracts share."""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from flexrelay_contracts import masterdata
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.masterdata import Name
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller
from flexrelay_contracts.state import Record
from flexrelay_schemas.intervals import CalendarDay

ConnectionId = Name
CongestionPoint = Name
AuctionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
LocalId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
"""An id that its author chooses."""
MAX_POWER_W: Final = 10**10
SignedPowerW = Annotated[int, Field(ge=-MAX_POWER_W, le=MAX_POWER_W)]
"""Watts over an interval, positive = withdrawal."""
EnergyJ = Annotated[int, Field(ge=-(10**15), le=10**15)]
"""Energy in one interval; far below 2^53, so that sums and products of it stay exact in every reader."""

BUYERS: Final = ("dso", "tso")
PROVIDERS: Final = ("aggregator", "bsp")
MAX_ISPS: Final = 100


def check_plausible(day: CalendarDay, energies: Sequence[int], field: str) -> None:
    """`check_energy` of each interval of the date."""
    for index, energy in enumerate(energies):
        check_energy(day, index + 1, energy, f"{field}.{index}")


def check_energy(day: CalendarDay, isp: int, energy_j: int, field: str) -> None:
    """Refused('energy') for an interval of more than 10 GW: a number that no settlement could hold with its price would
    keep everybody's from being settled."""
    most = MAX_POWER_W * day.isp_seconds
    if abs(energy_j) > most:
        raise Refused("energy", f"ISP {isp}: {energy_j} J are more than {most} J, 10 GW", field)


def require_dso_of(ctx: ContractContext, caller: Caller, connection: str, date: str) -> Record:
    """The connection's data on a date. Refused('unknown_connection' | 'not_dso') unless the caller is its DSO."""
    found = masterdata.at(ctx, "connection", connection, date)
    if found is None:
        raise Refused("unknown_connection", f"connection {connection} is not recorded on {date}", "connection")
    if found["dso"] != caller.did:
        raise Refused("not_dso", f"connection {connection} hangs on another operator's grid", "connection")
    return found


def require_mandate(ctx: ContractContext, aggregator: str, connection: str, point: str, date: str, field: str) -> None:
    """Refused('mandate' | 'congestion_point') unless the aggregator represents the connection, which hangs there."""
    mandate = masterdata.at(ctx, "mandate", connection, date)
    if mandate is None or mandate["aggregator"] != aggregator:
        raise Refused("mandate", f"{aggregator} does not represent connection {connection} on {date}", field)
    place = masterdata.at(ctx, "connection", connection, date)
    if place is None or place["congestion_point"] != point:
        raise Refused("congestion_point", f"connection {connection} does not hang on {point} on {date}", field)


def require_operator_of(ctx: ContractContext, caller: Caller, point: str, date: str) -> None:
    """Refused('unknown_congestion_point' | 'not_dso') unless all connections of the point are on the caller's grid."""
    connections = masterdata.connections_at(ctx, point, date)
    if not connections:
        raise Refused("unknown_congestion_point", f"no connection hangs on {point} on {date}", "congestion_point")
    if any(connection["dso"] != caller.did for connection in connections):
        raise Refused("not_dso", f"{point} belongs to another operator", "congestion_point")


def shared_collection(caller: Caller, *orgs: str) -> str:
    """The private collection whose members are exactly these organisations. Refused('no_collection')."""
    wanted = sorted(set(orgs))
    for name, members in sorted(caller.network["collections"].items()):
        if list(members) == wanted:
            return str(name)
    raise Refused("no_collection", f"the network has no private collection of {' and '.join(wanted)}")


def transient(ctx: ContractContext, name: str, most_bytes: int) -> bytes:
    """An input that stays off the chain. Refused('transient_missing' | 'too_large')."""
    value = ctx.transient.get(name)
    if not value:
        raise Refused("transient_missing", f"the transient input {name!r} is missing", name)
    if len(value) > most_bytes:
        raise Refused("too_large", f"{name} has at most {most_bytes} bytes, this one {len(value)}", name)
    return value


def put_among_members(ctx: ContractContext, collection: str, name: str, value: bytes) -> None:
    """Write a private value in a collection, after reading it: so only members can execute what sees the value."""
    ctx.get_private(collection, name)
    ctx.put_private(collection, name, value)
