"""Founding a network in a data folder, and publishing what its markets begin with: the calendar and the products."""

import asyncio
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flexrelay.app import Level, Site, open_site
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.holidays import german_holidays
from flexrelay.commissioning.operator import operator_desk
from flexrelay.commissioning.sample import configuration
from flexrelay.config import FILE_NAME, Config, ConfigError, load
from flexrelay.founding import GATEWAY, OPERATOR, MarketClock, found, genesis, identity_in, wallet_of
from flexrelay.identity import Wallet
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledgers import EmbeddedHost, fabric_installed, open_ledger
from flexrelay.market.calendar import days
from flexrelay.market.desk import Desk
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas import products
from flexrelay_sdk.clock import wall_ms

DAYS_AHEAD: Final = 365
PASSPHRASE: Final = "flexrelay_passphrase"  # noqa: S105  # a file's name

_UNFINISHED: Final = ".part"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_RESERVED: Final = frozenset({"ledger", "secrets", "devices", "broker"})

Progress = Callable[[str], None]


@dataclass(frozen=True)
class NetworkPlan:
    """What to found. The first of `orgs` keeps the operator's key. `clock` None: market time is wall time.

    `zone` is the IANA time zone of the market's days; `holidays` "de" marks the public holidays of all German states.
    """

    network: str
    orgs: tuple[str, ...]
    zone: str = "Europe/Berlin"
    holidays: str = ""
    clock: MarketClock | None = None
    http_port: int = 9464
    profiles: Mapping[str, Path] = field(default_factory=dict)
    """Organisation → connection profile: the ledger is a Fabric network, which is there. Empty: the embedded ledger."""

    def check(self) -> None:
        """Raises CommissioningError for names and values that no network can have."""
        for what, names in (("network", (self.network,)), ("organisation", self.orgs)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise CommissioningError(f"{what} {name!r}: use a to z, 0 to 9 and -, beginning with a letter")
        if not self.orgs:
            raise CommissioningError("a network has at least one organisation")
        if len(set(self.orgs)) != len(self.orgs):
            raise CommissioningError(f"an organisation stands twice: {', '.join(self.orgs)}")
        taken = sorted(_RESERVED.intersection(self.orgs))
        if taken:
            raise CommissioningError(f"organisation {taken[0]!r}: the data folder has a folder of this name already")
        for org in (*self.profiles, *self.orgs) if self.profiles else ():
            if org not in self.orgs:
                raise CommissioningError(f"a connection profile is given for {org!r}, which is not named: --org {org}")
            if org not in self.profiles:
                raise CommissioningError(f"organisation {org!r} has no connection profile: --profile {org}=FILE")
            if not self.profiles[org].is_file():
                raise CommissioningError(f"the connection profile {self.profiles[org]} of {org} does not exist")
        if self.holidays not in ("", "de"):
            raise CommissioningError(f"holidays {self.holidays!r} are not known; there is: de")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise CommissioningError(
                f"time zone {self.zone!r} is unknown; use an IANA name such as Europe/Berlin"
            ) from None


async def found_network(folder: Path, plan: NetworkPlan, progress: Progress = lambda text: None) -> dict[str, Any]:
    """Make the data folder, its keys, its ledger, and publish calendar and products.

    Asked again it goes on where it was, and extends the calendar to a year from now. Returns what stands there.
    Raises CommissioningError (the folder holds something else), ConfigError, and the ledger's errors.
    """
    plan.check()
    config = await asyncio.to_thread(_prepare, folder, plan)
    progress("keys")
    wallets = {org: wallet_of(folder, org, config.passphrase) for org in plan.orgs}
    for wallet in wallets.values():
        await asyncio.to_thread(identity_in, wallet, plan.network, "gateway", GATEWAY)
    progress("ledger")
    operator = await _found(folder, config, plan, wallets)
    own = wallets[plan.orgs[0]].find(OPERATOR)
    level = Level.ACTING if own is not None and own.did == operator else Level.READING
    async with open_site(folder, config, level) as site:
        if level is Level.ACTING:
            progress("calendar and products")
            last = await publish(site, plan.zone, plan.holidays)
        else:
            days = await site.gateways[plan.orgs[0]].ledger.evaluate("calendar.days", {})
            last = max((day["date"] for day in days), default="")
        named = await site.gateways[plan.orgs[0]].ledger.evaluate("products.all", {})
        height = await site.ledger.height()
    return {
        "folder": str(folder),
        "network": plan.network,
        "organisations": list(plan.orgs),
        "operator": operator,
        "operated_here": level is Level.ACTING,
        "calendar_until": last,
        "products": [item["product"] for item in named],
        "ledger_height": height,
        "http_port": config.http.port,
    }


async def _found(folder: Path, config: Config, plan: NetworkPlan, wallets: Mapping[str, Wallet]) -> str:
    """The operator's DID. On Fabric the network's organisations are those of the first profile."""
    clock = plan.clock or MarketClock()
    if plan.profiles:
        with fabric_installed():
            from flexrelay.ledger.fabric import load_profile
        profile = await asyncio.to_thread(load_profile, plan.profiles[plan.orgs[0]])
        members = [member.msp for member in profile.organisations if member.kind == "peer"]
        async with open_ledger(folder, config) as host:
            return await found(host, plan.network, wallets, clock, plan.orgs[0], members)
    document = await asyncio.to_thread(genesis, plan.network, wallets)
    async with EmbeddedLedger.open(folder / config.ledger.folder, document) as ledger:
        return await found(EmbeddedHost(ledger), plan.network, wallets, clock, plan.orgs[0])


async def publish(site: Site, zone: str, holidays: str = "", days_ahead: int = DAYS_AHEAD) -> str:
    """Publish the shipped products that are missing, and the calendar up to `days_ahead` from the market's today.

    Returns the last published date.
    """
    desk = operator_desk(site)
    reader = next(iter(site.gateways.values())).ledger
    for product in products.load_all():
        known = {item["product"] for item in await reader.evaluate("products.all", {})}
        if product.product not in known:
            await _once(desk, "products.publish", {"document": product.model_dump(mode="json")}, "version")
    published = await reader.evaluate("calendar.days", {})
    today = datetime.fromtimestamp(site.clock.market(wall_ms()) / 1000, UTC).astimezone(ZoneInfo(zone)).date()
    first, last = today, today + timedelta(days=days_ahead)
    if published:
        first = date.fromisoformat(max(day["date"] for day in published)) + timedelta(days=1)
    if first <= last:
        free = german_holidays(first, last) if holidays == "de" else frozenset()
        for part in _parts(first, last):
            found = [day.model_dump() for day in days(zone, *part, free)]
            await _once(desk, "calendar.publish", {"days": found}, "calendar_published")
    return max(last, first - timedelta(days=1)).isoformat()


def _parts(first: date, last: date) -> Iterator[tuple[date, date]]:
    """A transaction publishes at most 400 days."""
    while first <= last:
        upto = min(last, first + timedelta(days=399))
        yield first, upto
        first = upto + timedelta(days=1)


async def _once(desk: Desk, function: str, args: dict[str, Any], done: str) -> None:
    """A step that an interrupted run may have left in the outbox: the refusal `done` says that it stands."""
    try:
        await desk.do(function, args)
    except Refused as refused:
        if refused.code != done:
            raise


def _prepare(folder: Path, plan: NetworkPlan) -> Config:
    """Folder, secret and configuration, in an order in which an interruption leaves something that can go on."""
    path = folder / FILE_NAME
    if folder.exists() and not folder.is_dir():
        raise CommissioningError(f"{folder} is not a folder")
    if not path.exists():
        if folder.exists() and any(not entry.name.endswith(_UNFINISHED) for entry in folder.iterdir()):
            raise CommissioningError(f"{folder} holds something else: name a new or an empty folder")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, configuration(plan.network, plan.orgs, plan.http_port, plan.profiles), 0o600)
    secret = folder / "secrets" / PASSPHRASE
    if not os.environ.get("FLEXRELAY_PASSPHRASE") and not secret.exists():
        if any((folder / org / "keys").exists() for org in plan.orgs):
            raise ConfigError(f"{folder} has keys but {secret} is not there: set FLEXRELAY_PASSPHRASE to theirs")
        secret.parent.mkdir(mode=0o700, exist_ok=True)
        _write_new(secret, secrets.token_urlsafe(24) + "\n", 0o600)
    config = load(folder)
    orgs = tuple(gateway.org for gateway in config.gateways)
    if (config.network, orgs) != (plan.network, plan.orgs):
        raise CommissioningError(
            f"{folder} is of network {config.network} with {', '.join(orgs)}, not of {plan.network} with "
            f"{', '.join(plan.orgs)}: name another folder"
        )
    _check_ledger(folder, plan, config)
    return config


def _check_ledger(folder: Path, plan: NetworkPlan, config: Config) -> None:
    """Raises CommissioningError when the folder's ledger is not the one that is asked for."""
    there = {org: (folder / path).resolve() for org, path in config.ledger.profiles.items() if org in plan.orgs}
    if there != {org: path.resolve() for org, path in plan.profiles.items()}:
        options = " ".join(f"--profile {org}={path}" for org, path in there.items()) or "no --profile"
        raise CommissioningError(
            f"{folder} was begun with another ledger ({config.ledger.kind}, see [ledger] in {FILE_NAME}): give "
            f"{options}, change {FILE_NAME}, or name another folder"
        )


def _write_new(path: Path, text: str, mode: int) -> None:
    """There in full or not at all."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
