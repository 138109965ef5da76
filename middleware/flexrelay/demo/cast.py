"""Who takes part in the demo: organisations, actors, connections and devices, and how they get onto the ledger."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from flexrelay.app import Site
from flexrelay.commissioning import add_actor, operator_desk, receive_device, register_device
from flexrelay.demo.devices import Device, DeviceIdentity, device_key
from flexrelay.demo.grid import DATES, HOLIDAYS, ISP_SECONDS, ISPS_A_DAY, TIME_ZONE, Battery, Grid
from flexrelay.demo.plants import BatteryPlant, MeterPlant, Plant, SeriesPlant
from flexrelay.demo.unsigned import UnsignedDevice
from flexrelay.devices import DeviceRecord
from flexrelay.founding import OPERATOR, identity_in
from flexrelay.identity import Identity, Wallet
from flexrelay.market.calendar import days
from flexrelay.market.desk import Desk
from flexrelay.market.fleet import Fleet, Unit
from flexrelay_schemas import products
from flexrelay_schemas.did import Create, key_hash, operation_message
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.keys import multikey
from flexrelay_sdk.clock import wall_ms

DSO, A, B = "dso", "agg-a", "agg-b"
ORGS = (DSO, A, B)
POINT = "rural1-transformer"
CONGESTION, LOCAL = "congestion-day-ahead", "local-energy-auction"
FLEETS: Mapping[str, tuple[str, ...]] = {A: ("s1", "s3", "s4"), B: ("s2", "s5")}
"""Which batteries each aggregator represents."""
SPEAKS: Mapping[str, str] = {"s3": "lwm2m", "s4": "lwm2m", "s2": "opcua", "s5": "opcua"}
"""Batteries with a line of their own to their aggregator's gateway, and its protocol; a meter before each signs what
counts, over MQTT. The one that is not here is its own meter and does all over MQTT."""
SELLERS = ("bus01", "bus05", "bus11")
"""Customers with large PV plants who sell in the local auction."""
ROLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    DSO: {"dso": ("dso",), "tso": ("tso",), "brp-supply": ("brp",)},
    A: {"aggregator": ("aggregator",), "brp": ("brp",)},
    B: {"aggregator": ("aggregator",), "brp": ("brp",)},
}
FUNDS_MICRO_EUR = 1_000_000_000
"""What every trading actor pays in at the beginning: 1,000 €."""

Progress = Callable[[str], None]


@dataclass
class Cast:
    """Desks by (organisation, label); devices by name; connections, their meters and controls by name."""

    site: Site
    grid: Grid
    desks: dict[tuple[str, str], Desk] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    """Those on MQTT, which sign."""
    unsigned: dict[str, UnsignedDevice] = field(default_factory=dict)
    """Those on other protocols, which do not."""
    controls: dict[str, str] = field(default_factory=dict)
    """Connection of a battery → DID of the device that is commanded."""
    meters: dict[str, str] = field(default_factory=dict)
    """Connection → DID of its meter; the transformer's under POINT."""
    brps: dict[str, str] = field(default_factory=dict)
    """Connection → DID of its BRP."""
    days: dict[str, CalendarDay] = field(default_factory=dict)

    def desk(self, org: str, label: str) -> Desk:
        return self.desks[org, label]

    def market_now(self) -> int:
        """The market clock's instant, UTC ms."""
        return self.site.clock.market(wall_ms())

    def fleet(self, org: str) -> Fleet:
        """An aggregator's batteries."""
        rated = {battery.name: battery for battery in self.grid.batteries}
        return Fleet(
            tuple(
                Unit(name, self.controls[name], rated[name].rated_w, rated[name].capacity_wh * 3600)
                for name in FLEETS[org]
            )
        )


def org_of(battery: str) -> str:
    """The aggregator that represents a battery."""
    return next(org for org, names in FLEETS.items() if battery in names)


def plants(grid: Grid, start_ms: int) -> dict[str, tuple[str, Plant, tuple[str, ...]]]:
    """Device name → (kind, what it measures, organisations that receive it)."""
    result: dict[str, tuple[str, Plant, tuple[str, ...]]] = {}
    for connection in grid.connections:
        result[f"meter-{connection.name}"] = ("meter", SeriesPlant(connection.series_w), (DSO,))
    for inverter in grid.inverters:
        result[f"inverter-{inverter.name}"] = ("pv", SeriesPlant(inverter.series_w), (DSO,))
    for battery in grid.batteries:
        plant, org = battery_plant(battery, start_ms), org_of(battery.name)
        if battery.name in SPEAKS:
            result[f"meter-{battery.name}"] = ("meter", MeterPlant(plant), (DSO, org))
            result[f"battery-{battery.name}"] = ("battery", plant, (org,))
        else:
            result[f"battery-{battery.name}"] = ("battery", plant, (DSO, org))
    return result


def battery_plant(battery: Battery, start_ms: int) -> BatteryPlant:
    """An empty, lossless battery: its charge is its meter's."""
    return BatteryPlant(
        rated_w=battery.rated_w,
        capacity_wh=battery.capacity_wh,
        start_ms=start_ms,
        soc_permille=0,
        isp_seconds=ISP_SECONDS,
    )


class TransformerPlant:
    """The transformer's meter: Σ of all connections' meters and its own losses, from the same simulated physics."""

    def __init__(self, grid: Grid, batteries: Iterable[BatteryPlant]) -> None:
        self._grid = grid
        self._batteries = tuple(batteries)
        self._samples = [{"import_j": 0, "export_j": 0, "power_w": 0}]

    def registers(self, boundary: int) -> dict[str, int]:
        while len(self._samples) <= boundary:
            index = len(self._samples)
            through_j = self._grid.net_w[index - 1] * ISP_SECONDS
            for battery in self._batteries:
                before, after = battery.registers(index - 1), battery.registers(index)
                through_j += after["import_j"] - before["import_j"] - after["export_j"] + before["export_j"]
            energy_j = through_j + self._grid.losses_w(through_j // ISP_SECONDS) * ISP_SECONDS
            last = self._samples[-1]
            self._samples.append(
                {
                    "import_j": last["import_j"] + max(energy_j, 0),
                    "export_j": last["export_j"] + max(-energy_j, 0),
                    "power_w": energy_j // ISP_SECONDS,
                }
            )
        return dict(self._samples[boundary])


@dataclass(frozen=True)
class NewDevice:
    """A device that is not on the ledger yet; its keys are its own and no gateway has them."""

    name: str
    kind: str
    plant: Plant
    receivers: tuple[str, ...]
    controller: tuple[str, str]
    """(organisation, label) of the actor that answers for it."""

    @property
    def protocol(self) -> str:
        return SPEAKS.get(self.name.removeprefix("battery-"), "mqtt") if self.kind == "battery" else "mqtt"


def new_devices(grid: Grid, start_ms: int) -> list[NewDevice]:
    """All devices of the demo."""
    made = plants(grid, start_ms)
    batteries = [plant for _, plant, _ in made.values() if isinstance(plant, BatteryPlant)]
    installed = {name: (org, "aggregator") for org, names in FLEETS.items() for name in names}
    result = [
        NewDevice(name, kind, plant, orgs, installed.get(name.partition("-")[2], (DSO, "dso")))
        for name, (kind, plant, orgs) in made.items()
    ]
    transformer = TransformerPlant(grid, batteries)
    return [*result, NewDevice("meter-transformer", "meter", transformer, (DSO,), (DSO, "dso"))]


def calendar() -> list[CalendarDay]:
    """The days of the story and one after them."""
    first, last = date.fromisoformat(DATES[0]), date.fromisoformat(DATES[-1])
    holidays = frozenset(date.fromisoformat(text) for text in HOLIDAYS)
    return days(TIME_ZONE, first, date.fromordinal(last.toordinal() + 1), holidays, ISP_SECONDS)


@dataclass
class Roster:
    """Who there will be, before there is a network: identities in wallets, devices with keys of their own."""

    identities: dict[tuple[str, str], Identity]
    """Actors by (organisation, label)."""
    devices: dict[str, tuple[NewDevice, Create, DeviceIdentity]]

    def unsigned(self) -> list[UnsignedDevice]:
        """Devices that do not speak MQTT."""
        start_ms = calendar()[0].start
        return [
            UnsignedDevice(name, identity.did, new.protocol, new.receivers[0], new.plant, start_ms)
            for name, (new, _, identity) in self.devices.items()
            if new.protocol != "mqtt" and isinstance(new.plant, BatteryPlant)
        ]


def enlist(wallets: Mapping[str, Wallet], network: str, grid: Grid, seed: str) -> Roster:
    """Make all identities. A device's keys come from the seed; it gets a random broker password."""
    identities = {(org, label): identity_in(wallets[org], network, "actor", label) for org, label, _ in _actors(grid)}
    start = calendar()[0].start
    devices = {}
    for new in new_devices(grid, start):
        private, following = device_key(seed, new.name), device_key(seed, f"{new.name}/next")
        operation = Create(
            network=network,
            kind="device",
            controller=identities[new.controller].did,
            key=multikey(private.public_key()),
            next_key_hash=key_hash(multikey(following.public_key())),
            nonce=secrets.token_hex(16),
        )
        identity = DeviceIdentity(new.name, operation.did(), private.sign, secrets.token_urlsafe(18))
        devices[new.name] = (new, operation, identity)
    return Roster(identities, devices)


def _actors(grid: Grid) -> list[tuple[str, str, tuple[str, ...]]]:
    """(organisation, label, roles) of everybody, customers of batteries with their aggregator."""
    named = [(org, label, roles) for org, labels in ROLES.items() for label, roles in labels.items()]
    houses = [
        (DSO, f"customer-{c.name}", ("prosumer",) if c.name in SELLERS else ("consumer",)) for c in grid.connections
    ]
    return [*named, *houses, *((org_of(b.name), f"customer-{b.name}", ("consumer",)) for b in grid.batteries)]


async def assemble(
    site: Site, grid: Grid, roster: Roster, bindings: Mapping[str, tuple[str, str]], progress: Progress
) -> Cast:
    """Register everybody and everything. Every step is a signed intent through an organisation's own gateway.

    `bindings`: DID → (protocol, credential) of the devices that do not speak MQTT.
    """
    cast = Cast(site, grid)
    cast.unsigned = {device.name: device for device in roster.unsigned()}
    cast.days = {day.date: day for day in calendar()}
    desk = cast.desks[DSO, OPERATOR] = operator_desk(site)
    progress("calendar and products")
    await desk.do("calendar.publish", {"days": [day.model_dump() for day in cast.days.values()]})
    for product in (CONGESTION, LOCAL):
        await desk.do("products.publish", {"document": products.load(product).model_dump(mode="json")})
    progress("actors and their role credentials")
    await asyncio.gather(*(_actor(cast, roster, org, label, roles) for org, label, roles in _actors(grid)))
    progress("devices")
    await asyncio.gather(*(_device(cast, *entry, bindings) for entry in roster.devices.values()))
    progress("master data, qualification, funds")
    await _master_data(cast)
    await _money(cast)
    return cast


async def _actor(cast: Cast, roster: Roster, org: str, label: str, roles: Sequence[str]) -> None:
    """Registered through the organisation's gateway, its roles enrolled by credentials of the operator."""
    await add_actor(cast.site, org, label, roles)
    cast.desks[org, label] = cast.site.gateways[org].desk(roster.identities[org, label].did)


async def _device(
    cast: Cast,
    new: NewDevice,
    operation: Create,
    identity: DeviceIdentity,
    bindings: Mapping[str, tuple[str, str]],
) -> None:
    """The device has signed its own create operation; its controller registers it, the receivers enrol it."""
    proof = b64u(identity.sign(operation_message(operation)))
    await register_device(cast.site, cast.site.gateways[new.controller[0]], operation, proof)
    bound = (bindings[identity.did],) if identity.did in bindings else ()
    record = DeviceRecord(identity.did, new.name, new.kind, bound, new.receivers, unsigned=bool(bound))
    await receive_device(cast.site, record)
    battery = new.name.removeprefix("battery-")
    if new.kind == "battery":
        cast.controls[battery] = identity.did
    if bound:
        return
    start = cast.days[DATES[0]].start
    cast.devices[new.name] = Device(identity, new.plant, new.receivers, start_ms=start, isp_seconds=ISP_SECONDS)
    if new.kind == "pv":  # telemetry behind the meter: nobody asks for its past
        cast.devices[new.name].sent = DATES.index(DATES[-2]) * ISPS_A_DAY
    if new.kind == "battery":
        cast.meters[battery] = identity.did
    elif new.name == "meter-transformer":
        cast.meters[POINT] = identity.did
    elif new.kind == "meter":
        cast.meters[new.name.removeprefix("meter-")] = identity.did


async def _master_data(cast: Cast) -> None:
    """Connections, meters, BRPs, suppliers, mandates and consents, all from the first day on."""
    dso = cast.desk(DSO, "dso")
    aggregators = {name: org_of(name) for name in (battery.name for battery in cast.grid.batteries)}
    names = [*(connection.name for connection in cast.grid.connections), *aggregators]

    async def record(kind: str, connection: str, data: Mapping[str, Any]) -> None:
        args = {"kind": kind, "connection": connection, "valid_from": DATES[0], "data": dict(data)}
        await dso.do("masterdata.record", args)

    async def connect(name: str) -> None:
        org = aggregators.get(name, DSO)
        supply = cast.desk(DSO, "brp-supply").did
        brp = cast.brps[name] = cast.desk(org, "brp").did if name in aggregators else supply
        owner = cast.desk(org, f"customer-{name}").did
        await record("connection", name, {"congestion_point": POINT, "dso": dso.did, "owner": owner})
        await record("meter", name, {"device": cast.meters[name]})
        await record("supplier", name, {"supplier": supply})
        await record("brp", name, {"brp": brp})
        receivers = [DSO, *([org] if name in aggregators else [])]
        await record("receiver", name, {"device": cast.meters[name], "orgs": receivers})
        if name in aggregators:
            await record("device", name, {"device": cast.controls[name], "device_kind": "battery"})
            if cast.controls[name] != cast.meters[name]:
                await record("receiver", name, {"device": cast.controls[name], "orgs": [org]})
            await record("mandate", name, {"aggregator": cast.desk(org, "aggregator").did})

    first, *others = names
    await connect(first)  # which makes the DSO the congestion point's operator: the others only read that
    await asyncio.gather(*(connect(name) for name in others))


async def _money(cast: Cast) -> None:
    """What batteries may sell, what sellers may feed in, and what everybody pays in."""
    dso, operator = cast.desk(DSO, "dso"), cast.desk(DSO, OPERATOR)
    qualified = [(b.name, direction, b.rated_w) for b in cast.grid.batteries for direction in ("withdrawal", "feed_in")]
    large = {connection.name: -min(connection.series_w) for connection in cast.grid.connections}
    qualified += [(name, "feed_in", large[name]) for name in SELLERS]
    accounts = [f"actor:{dso.did}", *(f"actor:{cast.desk(org, 'aggregator').did}" for org in (A, B))]
    brps = sorted(set(cast.brps.values()))
    accounts += [f"brp:{brp}" for brp in brps]
    await asyncio.gather(
        *(
            dso.do(
                "portfolio.qualify",
                {"connection": name, "direction": direction, "max_w": watts, "valid_from": DATES[0]},
            )
            for name, direction, watts in qualified
        ),
        *(
            operator.do("accounts.fund", {"account": account, "micro_eur": FUNDS_MICRO_EUR, "reference": "demo"})
            for account in accounts
        ),
    )
