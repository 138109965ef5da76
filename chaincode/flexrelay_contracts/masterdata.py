"""Master data of connections with effective dates: who owns, meters, supplies, balances, represents one, and when.

A record holds from `valid_from` (a local date) until the day before `valid_to`, or until the next record of the same
kind begins. What is already in force is corrected only with `supersede`, visibly: the record counts its revisions and
names the transaction it replaces.

A congestion point belongs to who first hangs a connection on it, and to whom it hands one over: key("point_operators",
point), where the genesis says so (`network.Bootstrap.point_operators`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from flexrelay_contracts import didlog
from flexrelay_contracts.calendar import parse_date, today
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.grants import holds
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, save, scan
from flexrelay_schemas.did import Did
from flexrelay_schemas.intervals import LocalDate
from flexrelay_schemas.model import Items, Model

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Kind = Literal["connection", "meter", "device", "supplier", "brp", "mandate", "receiver"]


class Connection(Model):
    """The connection itself: where it hangs in the grid, its system operator, the actor that owns it."""

    congestion_point: Name
    dso: Did
    owner: Did


class Meter(Model):
    device: Did


class Device(Model):
    """A controllable or observed device behind the connection; several per connection."""

    device: Did
    device_kind: Name


class Supplier(Model):
    supplier: Did


class Brp(Model):
    brp: Did


class Mandate(Model):
    aggregator: Did


class Receiver(Model):
    """Consent: these organisations' gateways may receive the device's readings (several devices per connection)."""

    device: Did
    orgs: Annotated[Items[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]], Field(max_length=64)]


_DATA: dict[str, type[Model]] = {
    "connection": Connection,
    "meter": Meter,
    "device": Device,
    "supplier": Supplier,
    "brp": Brp,
    "mandate": Mandate,
    "receiver": Receiver,
}
_PER_DEVICE = ("device", "receiver")


class RecordData(Model):
    """`valid_to` is the first date on which the record holds no more; empty: open."""

    kind: Kind
    connection: Name
    valid_from: LocalDate
    valid_to: LocalDate | Literal[""] = ""
    data: dict[str, Any]
    supersede: bool = False


class Show(Model):
    connection: Name
    date: LocalDate


class ByCongestionPoint(Model):
    congestion_point: Name
    date: LocalDate


class ByDevice(Model):
    device: Did
    date: LocalDate


def at(ctx: ContractContext, kind: str, connection: str, date: str) -> Record | None:
    """The data in force on a date for kinds that have one per connection (not 'device', 'receiver'), or None.

    The result is the record's `data` with `connection`, `valid_from`, `valid_to` beside it.
    """
    return _in_force([record for _, record in scan(ctx, "masterdata", kind, connection, "-")], date)


def devices_at(ctx: ContractContext, connection: str, date: str) -> list[Record]:
    """The devices behind a connection on a date, ordered by DID."""
    return _per_slot(ctx, "device", connection, date)


def receivers_at(ctx: ContractContext, device: str, date: str) -> list[str]:
    """The organisations that may receive a device's readings on a date."""
    records = [record for _, record in scan(ctx, "receiver_by_device", device)]
    found = _in_force(records, date)
    return [] if found is None else list(found["orgs"])


def operators_of(ctx: ContractContext, device: str, date: str) -> list[str]:
    """The system operator of the connection that a meter or device is behind on a date; empty: behind none."""
    result = []
    for (_, connection), _ in scan(ctx, "device_behind", device):
        place = at(ctx, "connection", connection, date) if _behind(ctx, connection, device, date) else None
        if place is not None:
            result.append(place["dso"])
    return result


def connections_at(ctx: ContractContext, congestion_point: str, date: str) -> list[Record]:
    """The connections that hang on a congestion point on a date, ordered by name."""
    result = []
    for (_, connection), _ in scan(ctx, "connection_at", congestion_point):
        found = at(ctx, "connection", connection, date)
        if found is not None and found["congestion_point"] == congestion_point:
            result.append(found)
    return result


def _record(ctx: ContractContext, caller: Caller, args: RecordData) -> Result:
    parse_date(args.valid_from, "valid_from")
    if args.valid_to and parse_date(args.valid_to, "valid_to") <= parse_date(args.valid_from, "valid_from"):
        raise Refused("invalid_argument", "valid_to is not after valid_from", "valid_to")
    data = _data(args)
    if not _is_dso(ctx, caller, args, data):
        _check_holder(ctx, caller, args, data)
    _check_parties(ctx, args.kind, data)
    if args.kind == "connection":
        _check_point(ctx, caller, data)
    if args.kind in ("meter", "device"):
        _claim(ctx, args, data["device"])
    if args.kind == "receiver" and not _behind(ctx, args.connection, data["device"], args.valid_from):
        raise Refused("unknown_device", f"the device is not behind {args.connection} on that date", "data.device")
    slot = data["device"] if args.kind in _PER_DEVICE else "-"
    history = [record for _, record in scan(ctx, "masterdata", args.kind, args.connection, slot)]
    same = next((record for record in history if record["valid_from"] == args.valid_from), None)
    if not args.supersede and _changes_past(history, args) and args.valid_from <= today(ctx).date:
        raise Refused(
            "in_force", f"there is {args.kind} data in force from {args.valid_from} on; say supersede", "supersede"
        )
    record = {
        "kind": args.kind,
        "connection": args.connection,
        "valid_from": args.valid_from,
        "valid_to": args.valid_to,
        "data": data,
        "writer": caller.did,
        "tx_id": ctx.tx_id,
        "revision": same["revision"] + 1 if same else 1,
        "replaces": same["tx_id"] if same else "",
    }
    save(ctx, key("masterdata", args.kind, args.connection, slot, args.valid_from), record)
    if args.kind == "connection":
        save(ctx, key("connection_at", data["congestion_point"], args.connection), {"connection": args.connection})
    if args.kind == "receiver":
        save(ctx, key("receiver_by_device", slot, args.valid_from), record)
    announce(
        ctx,
        "masterdata.recorded",
        {"kind": args.kind, "connection": args.connection, "valid_from": args.valid_from, "data": data},
    )
    return {"revision": record["revision"]}


def _data(args: RecordData) -> Record:
    try:
        return _DATA[args.kind].model_validate(args.data).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("data", *first["loc"]))
        raise Refused("invalid_argument", first["msg"], path) from None


def _is_dso(ctx: ContractContext, caller: Caller, args: RecordData, data: Record) -> bool:
    """Whether the caller is the connection's DSO, which writes everything. A new connection names its DSO itself."""
    current = _current(ctx, args)
    if current is None and args.kind != "connection":
        raise Refused("unknown_connection", f"connection {args.connection} is not recorded", "connection")
    dso = data["dso"] if current is None else current["dso"]
    if caller.did == dso and holds(ctx, caller.did, "dso"):
        return True
    if args.kind == "connection":
        raise Refused("role", "a connection is recorded by its own DSO, which holds the role dso", "data.dso")
    return False


def _check_point(ctx: ContractContext, caller: Caller, data: Record) -> None:
    """Refused('not_dso') for another operator's congestion point: a foreign connection would keep it out of its own
    markets."""
    if not caller.network.get("point_operators", False):
        return
    name = key("point_operators", data["congestion_point"])
    record = load(ctx, name)
    operators = record["dsos"] if record is not None else []
    if data["dso"] in operators:
        return
    if operators and caller.did not in operators:
        raise Refused("not_dso", f"{data['congestion_point']} belongs to another operator", "data.congestion_point")
    save(ctx, name, {"dsos": sorted([*operators, data["dso"]])})


def _check_holder(ctx: ContractContext, caller: Caller, args: RecordData, data: Record) -> None:
    """The connection's owner mandates, a device's controller consents, both from a later day on: what has been in
    force decides about settlements, and nobody changes it for himself afterwards."""
    current = _current(ctx, args)
    if args.kind == "mandate" and current is not None:
        holder = current["owner"]
    elif args.kind == "receiver":
        holder = didlog.did_record(ctx, data["device"], "data.device")["controller"]
    else:
        holder = ""
    if caller.did != holder:
        raise Refused("not_writer", f"{caller.did} may not record {args.kind} data of {args.connection}", "connection")
    if args.valid_from <= today(ctx).date:
        raise Refused("in_force", "an owner's word holds from the next day on at the earliest", "valid_from")


def _current(ctx: ContractContext, args: RecordData) -> Record | None:
    """The connection's record on the date, or its earliest one for data that is dated before it."""
    return at(ctx, "connection", args.connection, args.valid_from) or _first(ctx, args.connection)


def _claim(ctx: ContractContext, args: RecordData, device: str) -> None:
    """A device is behind one connection at a time: nobody claims the meter of somebody else's connection."""
    for (_, connection), _claimed in scan(ctx, "device_behind", device):
        if connection == args.connection:
            continue
        begins = [
            record["valid_from"]
            for kind in ("meter", "device")
            for _, record in scan(ctx, "masterdata", kind, connection)
            if args.valid_from < record["valid_from"] and (not args.valid_to or record["valid_from"] < args.valid_to)
        ]
        if any(_behind(ctx, connection, device, date) for date in (args.valid_from, *begins)):
            raise Refused("device_elsewhere", f"the device is behind {connection} then", "data.device")
    save(ctx, key("device_behind", device, args.connection), {"connection": args.connection})


def _behind(ctx: ContractContext, connection: str, device: str, date: str) -> bool:
    meter = at(ctx, "meter", connection, date)
    if meter is not None and meter["device"] == device:
        return True
    return any(record["device"] == device for record in devices_at(ctx, connection, date))


def _check_parties(ctx: ContractContext, kind: str, data: Record) -> None:
    """Every DID that is named is registered and of the right kind."""
    for name in ("dso", "owner", "supplier", "brp", "aggregator", "device"):
        if name in data:
            wanted = "device" if name == "device" else "actor"
            if didlog.did_record(ctx, data[name], f"data.{name}")["kind"] != wanted:
                raise Refused("kind", f"{data[name]} is not of kind {wanted}", f"data.{name}")


def _changes_past(history: list[Record], args: RecordData) -> bool:
    """Whether some record holds on a date that the new one would take over."""
    return any(
        (not record["valid_to"] or record["valid_to"] > args.valid_from)
        and (not args.valid_to or record["valid_from"] < args.valid_to)
        for record in history
    )


def _in_force(records: list[Record], date: str) -> Record | None:
    """Of one kind's records in order of valid_from: the last one that began and has not ended."""
    begun = [record for record in records if record["valid_from"] <= date]
    if not begun or (begun[-1]["valid_to"] and begun[-1]["valid_to"] <= date):
        return None
    return _flat(begun[-1])


def _flat(record: Record) -> Record:
    return {**record["data"], **{name: record[name] for name in ("connection", "valid_from", "valid_to")}}


def _per_slot(ctx: ContractContext, kind: str, connection: str, date: str) -> list[Record]:
    slots: dict[str, list[Record]] = {}
    for (_, _, slot, _), record in scan(ctx, "masterdata", kind, connection):
        slots.setdefault(slot, []).append(record)
    found = [_in_force(records, date) for _, records in sorted(slots.items())]
    return [record for record in found if record is not None]


def _first(ctx: ContractContext, connection: str) -> Record | None:
    """The earliest record of a connection, for data that is dated before it."""
    for _, record in scan(ctx, "masterdata", "connection", connection, "-"):
        return _flat(record)
    return None


def _show(ctx: ContractContext, args: Show) -> Record:
    """Everything that is in force for a connection on a date."""
    single = ("connection", "meter", "supplier", "brp", "mandate")
    result: Record = {kind: at(ctx, kind, args.connection, args.date) for kind in single}
    result["devices"] = devices_at(ctx, args.connection, args.date)
    result["receivers"] = _per_slot(ctx, "receiver", args.connection, args.date)
    return result


def _by_congestion_point(ctx: ContractContext, args: ByCongestionPoint) -> list[Record]:
    return connections_at(ctx, args.congestion_point, args.date)


def _receivers(ctx: ContractContext, args: ByDevice) -> list[str]:
    return receivers_at(ctx, args.device, args.date)


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction("masterdata.record", RecordData, _record),)
QUERIES: tuple[Query[Any], ...] = (
    Query("masterdata.show", Show, _show),
    Query("masterdata.connections", ByCongestionPoint, _by_congestion_point),
    Query("masterdata.receivers", ByDevice, _receivers),
)
