"""The demo's stage: a data folder, a broker, a ledger and three gateways in one process.

What is written is an ordinary data folder: `flexrelay run FOLDER` goes on with it.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from flexrelay.app import Site, open_site
from flexrelay.config import FILE_NAME, load
from flexrelay.demo.broker import TOPICS, Account, Broker, device_account, gateway_account, start_broker
from flexrelay.demo.cast import FLEETS, ORGS, Cast, Progress, Roster, assemble, calendar, enlist
from flexrelay.demo.devices import Fleet
from flexrelay.demo.grid import DATES, ISP_SECONDS, Grid
from flexrelay.demo.ledger import LedgerKind, founded
from flexrelay.demo.lines import UnsignedFleet
from flexrelay.founding import MarketClock, wallet_of
from flexrelay_schemas.did import split_did
from flexrelay_schemas.intervals import CalendarDay

NETWORK = "demo"


@dataclass
class Stage:
    """Everything that runs while the story is told."""

    folder: Path
    site: Site
    cast: Cast
    broker: Broker
    fleet: Fleet


@asynccontextmanager
async def open_stage(
    folder: Path,
    grid: Grid,
    make_clock: Callable[[], MarketClock],
    seed: str,
    progress: Progress,
    *,
    embedded_broker: bool = False,
    ledger: LedgerKind = "embedded",
    fabric: str = "3.1",
) -> AsyncIterator[Stage]:
    """Make the data folder, start the broker and the gateways, register everybody, connect the devices."""
    (folder / "secrets").mkdir(parents=True, mode=0o700)
    passphrase = SecretStr(_secret(folder / "secrets" / "flexrelay_passphrase"))
    wallets = {org: wallet_of(folder, org, passphrase) for org in ORGS}
    progress("identities")
    roster = enlist(wallets, NETWORK, grid, seed)
    passwords = {org: _secret(folder / "secrets" / f"mqtt-{org}") for org in ORGS}
    lines = UnsignedFleet(
        roster.unsigned(), folder, seed, first_ms=_first_unsigned(calendar()), isp_seconds=ISP_SECONDS
    )
    async with start_broker(folder / "broker", _accounts(roster, passwords), embedded=embedded_broker) as broker:
        progress(f"broker: {broker.kind} on port {broker.port}")
        async with lines, founded(ledger, folder, NETWORK, wallets, make_clock, progress, fabric) as section:
            (folder / FILE_NAME).write_text(_configuration(section, broker, grid, lines))
            async with open_site(folder, load(folder)) as site:
                cast = await assemble(site, grid, roster, lines.bindings(), progress)
                devices = Fleet(
                    cast.devices.values(), host=broker.host, port=broker.port, mqtt5=broker.mqtt5, now=cast.market_now
                )
                async with devices as fleet:
                    await lines.begin(site, cast.market_now)
                    yield Stage(folder, site, cast, broker, fleet)


def _first_unsigned(days: Sequence[CalendarDay]) -> int:
    """Telemetry behind a meter begins the day before delivery: nobody asks for its past."""
    return next(day.start for day in days if day.date == DATES[-2])


def _secret(path: Path) -> str:
    """A fresh random secret, kept in a file that only its owner reads."""
    value = secrets.token_urlsafe(24)
    path.touch(mode=0o600)
    path.write_text(value + "\n")
    return value


def _accounts(roster: Roster, passwords: dict[str, str]) -> list[Account]:
    devices = [
        device_account(split_did(identity.did)[1], identity.password)
        for new, _, identity in roster.devices.values()
        if new.protocol == "mqtt"
    ]
    return [*devices, *(gateway_account(org, f"gateway-{org}", passwords[org]) for org in ORGS)]


def _configuration(ledger: str, broker: Broker, grid: Grid, lines: UnsignedFleet) -> str:
    """The data folder's flexrelay.toml; `ledger` is its section of that name."""
    sections = [f'network = "{NETWORK}"\n\n{ledger}']
    for org in ORGS:
        sections.append(
            f"""
[[gateways]]
org = "{org}"
folder = "{org}"

[gateways.windows]
grace_s = 3600
anchor_every_s = 14400

[gateways.adapters.field]
type = "mqtt"
host = "{broker.host}"
port = {broker.port}
protocol = "{"5" if broker.mqtt5 else "3.1.1"}"
client_id = "gateway-{org}"
username = "gateway-{org}"
password_file = "secrets/mqtt-{org}"
readings = ["{TOPICS}/{org}/{{device}}/readings"]
commands = "{TOPICS}/{org}/{{device}}/commands"
results = "{TOPICS}/{org}/{{device}}/results"
"""
        )
        sections.append(lines.sections(org))
        sections += [
            f"""
[[gateways.fleet]]
device = "battery-{battery.name}"
connection = "{battery.name}"
rated_w = {battery.rated_w}
capacity_wh = {battery.capacity_wh}
"""
            for battery in grid.batteries
            if battery.name in FLEETS.get(org, ())
        ]
    return "".join(sections)
