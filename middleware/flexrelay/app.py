"""The application: the only place that names implementations and wires them.

A `Site` is one process: one ledger, one gateway per organisation in the configuration. A `Gateway` holds its
organisation's journal, store, keys and adapters. Stop order: adapters, ingest, consumers, projections, relay, stores,
ledger.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flexrelay.adapters import command_target, load_adapter
from flexrelay.config import BatteryConfig, Config, ConfigError, GatewayConfig, IngestConfig
from flexrelay.custody import Audit, Custody
from flexrelay.devices import (
    DISCOVERED,
    ENROLMENTS,
    FACTS,
    GAPS,
    Discovered,
    Enrolments,
    Facts,
    GapFilling,
    Gaps,
    keep_discovering,
    keep_learning,
    learn,
)
from flexrelay.dispatch import DISPATCH, Delivery, Dispatcher, DispatchOrder, NoCapacity, Planned, ProportionalPlan
from flexrelay.founding import GATEWAY, MarketClock, wallet_of
from flexrelay.http import Check, Gauge, OperatorServer
from flexrelay.identity import Signer, Wallet, sign_intent
from flexrelay.ingest import Ingest, Limits, RegisterChecks, Registry
from flexrelay.journal import JournalUnavailable, LetterBounds, SqliteJournal
from flexrelay.journal.consumer import Consumer, follow
from flexrelay.journal.port import DeadLetter
from flexrelay.ledger.late import LateLedger
from flexrelay.ledger.port import Ledger, LedgerError, LedgerHost, LedgerUnavailable
from flexrelay.ledgers import UnaskedHost, open_ledger
from flexrelay.logs import of_gateway
from flexrelay.market.activation import Activations
from flexrelay.market.desk import Desk
from flexrelay.market.fleet import Fleet, Unit
from flexrelay.market.openings import Openings
from flexrelay.market.watching import Watching
from flexrelay.outbox import OUTBOX, Outbox
from flexrelay.projections import PROJECTIONS, News, Projections, Revocation, Views
from flexrelay.relay import Relay
from flexrelay.remembered import Remembered, confirmed, known_network, network_record
from flexrelay.store import Damaged, Store, StoreUnavailable
from flexrelay.twin import TWIN, Twin, TwinHistory
from flexrelay.windows import WINDOWS, Anchoring, Calendar, Prover, Vault, Windows
from flexrelay_schemas.did import split_did
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_sdk import Adapter, Codec
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
RETRY_S = 1.0
"""Before a consumer of the journal that could not store tries again."""
COMPONENTS = (OUTBOX, PROJECTIONS, ENROLMENTS, TWIN, WINDOWS, DISPATCH, DISCOVERED, FACTS, GAPS)
"""Of a gateway's store."""
CALENDAR_S = 5.0
"""How long adapters wait for the calendar at most; without it no reading is noted as late."""


class Level(IntEnum):
    """How much of a site runs. Each level does what the ones before it do."""

    LOOKING = 0
    """What the gateways have stored is read as it is, while another process may run them. No ledger is asked."""
    READING = 1
    """The projections have caught up with the ledger; nothing is taken in, nothing is sent."""
    ACTING = 2
    """The relay carries intents."""
    SERVING = 3
    """Adapters, consumers, anchoring and dispatch run."""


@dataclass
class Gateway:
    """One organisation's gateway, wired and running. Made by `open_gateway`."""

    org: str
    network: str
    clock: MarketClock
    wallet: Wallet
    signer: Signer
    ledger: Ledger
    journal: SqliteJournal
    store: Store
    registry: Registry
    devices: Enrolments
    discovered: Discovered
    facts: Facts
    ingest: Ingest
    twin: Twin
    windows: Windows
    prover: Prover
    anchoring: Anchoring
    calendar: Calendar
    outbox: Outbox
    relay: Relay
    projections: Projections
    revocation: Revocation
    views: Views
    dispatcher: Dispatcher
    delivery: Delivery
    custody: Custody
    audit: Audit
    adapters: dict[str, Adapter]

    def desk(self, did: str) -> Desk:
        """Where an identity of this gateway's wallet signs; the gateway's own DID among them."""
        return Desk(self.wallet.signer(did), self.network, self.outbox, wall_ms)

    def market_now(self) -> int:
        """The market clock's instant, UTC ms."""
        return self.clock.market(wall_ms())

    def codec_for(self, letter: DeadLetter) -> Codec | None:
        """That of the adapter on whose channel a refused frame came; None when it has none any more."""
        codecs = (adapter.codec_for(letter.channel) for adapter in self.adapters.values())
        return next((codec for codec in codecs if codec is not None), None)

    def checks(self) -> Iterable[Check]:
        """Readiness: readings can be kept, everything that takes them is connected, and no intent waits for somebody to
        look."""
        yield Check(f"{self.org} journal", not self.ingest.trouble, self.ingest.trouble)
        for name, adapter in self.adapters.items():
            detail = f"not connected to {adapter.endpoint}: is it up?"
            yield Check(f"{self.org} adapter {name}", adapter.connected, detail)
        alarms = self.relay.alarms.standing
        told = "; ".join(
            f"intent {alarm.intent_id}, for {alarm.seconds:.0f} s: {alarm.message}" for alarm in alarms[:3]
        )
        yield Check(f"{self.org} relay", not alarms, f"{len(alarms)} intents cannot go on: {told}")

    def gauges(self) -> Iterable[Gauge]:
        org = {"org": self.org}
        for outcome, count in sorted(self.ingest.outcomes.items()):
            yield Gauge("frames", "Frames by outcome", count, {**org, "outcome": outcome}, counter=True)
        frames, size = self.ingest.waiting
        yield Gauge("ingest_queue_frames", "Frames that wait for the journal", frames, org)
        yield Gauge("ingest_queue_bytes", "Bytes that wait for the journal", size, org)
        yield Gauge("journal_end", "Newest position of the journal", self.journal.end, org)
        yield Gauge(
            "twin_lag_entries", "Journal entries the twin has not taken", self.journal.end - self.twin.position, org
        )
        yield Gauge("devices", "Enrolled devices", len(self.devices), org)
        yield Gauge("relay_in_flight", "Intents under way", self.relay.in_flight, org)
        standing = Counter(alarm.kind for alarm in self.relay.alarms.standing)
        for kind, count in sorted(self.relay.alarms.counts.items()):
            labels = {**org, "kind": kind}
            yield Gauge("relay_alarms", "Intents that cannot go on until somebody looks", standing[kind], labels)
            yield Gauge("relay_troubles", "Attempts that met such a trouble", count, labels, counter=True)
        yield Gauge("ledger_block", "Newest projected block", self.projections.block, org)
        lag = self.revocation.greatest_lag_ms / 1000
        yield Gauge("revocation_lag_seconds_max", "Greatest time from a revocation's timestamp to its effect", lag, org)


@asynccontextmanager
async def open_gateway(
    folder: Path,
    config: GatewayConfig,
    network: str,
    ledger: LedgerHost,
    clock: MarketClock,
    passphrase: SecretStr,
    level: Level = Level.SERVING,
    *,
    patient: bool = False,
) -> AsyncIterator[Gateway]:
    """Open the gateway in `folder` and run it until the block ends.

    `patient`: a ledger that does not answer is waited for while everything runs; only a gateway that has seen nothing
    of the ledger yet cannot know its devices, and takes no readings before.
    Raises ConfigError, and what journal, store and wallet raise for damaged or foreign files.
    """
    org = config.org
    wallet = wallet_of(folder, org, passphrase)
    identity = wallet.find(GATEWAY)
    if identity is None:
        raise ConfigError(f"{folder / org / 'keys'} holds no gateway key of {org}: `flexrelay init` makes one")
    signer = wallet.signer(identity.did)
    adapters = {name: load_adapter(org, name, section, folder) for name, section in config.adapters.items()}
    home = folder / config.folder
    connection = await (ledger.connect_later if patient else ledger.connect)(org, signer)
    away = isinstance(connection, LateLedger)
    limits = config.ingest
    async with AsyncExitStack() as stack:
        bounds = LetterBounds(total=limits.dead_letters, total_bytes=limits.dead_letter_bytes)
        looking = level is Level.LOOKING
        journal = await stack.enter_async_context(SqliteJournal(home / "journal.db", bounds, read_only=looking))
        _refuse_loss(home, journal.end)
        store = await stack.enter_async_context(Store(home / "store.db", COMPONENTS, read_only=looking))
        registry = Registry(network, org)
        devices = await Enrolments.open(store, org, registry)
        discovered = Discovered(store, org, registry)
        facts = Facts(store, org, registry)
        twin = await Twin.open(store, devices.describe)
        history = stack.enter_context(TwinHistory(twin, home / "store.db"))
        checks = RegisterChecks(history, journal.traces)
        if level >= Level.SERVING:
            await asyncio.to_thread(checks.prime)
        views = Views(store, org)
        revocation = Revocation(registry)
        await revocation.load(views)

        async def sign(function: str, args: Mapping[str, Any], deadline: int) -> bytes:
            return await sign_intent(signer, network, function, args, deadline, secrets.token_hex(16))

        def market_now() -> int:
            return clock.market(wall_ms())

        outbox = Outbox(store, org)
        days = _Days(connection, Remembered(home / "calendar.json"))
        vault = stack.enter_context(Vault(home / "vault.db", read_only=looking))
        windows = await Windows.open(store, vault, days.calendar, registry.counts, config.windows.grace_s * 1000)
        every_ms = config.windows.anchor_every_s * 1000
        anchoring = Anchoring(windows, outbox, signer, network, market_now, wall_ms, every_ms)
        relay = Relay(connection, outbox, sign=sign)
        if level >= Level.ACTING:
            await stack.enter_async_context(relay)
        dispatcher = Dispatcher(store, org, command_target(org, adapters, devices.credentials, registry.out))

        def desk_of(did: str) -> Desk | None:
            held = any(identity.did == did for identity in wallet.identities())
            return Desk(wallet.signer(did), network, outbox, wall_ms) if held else None

        plan = _FleetPlan(config.fleet, devices, registry, clock) if config.fleet else None
        activations = Activations(views, dispatcher, desk_of, plan, days.calendar.day, market_now)
        openings = Openings(views, connection, desk_of)
        delivery = Delivery(store, org)
        watching = Watching(org, views, connection, delivery, days.calendar.day)
        readers = [each.news.heard for each in (days, activations, openings, watching)]
        projections = Projections(connection, store, org, listeners=(revocation,), readers=readers)
        if level > Level.LOOKING:
            await stack.enter_async_context(projections)
        ingest = Ingest(registry, journal, checks, market_now, _limits(limits), windows.due_until)
        prover = Prover(store, journal, vault, org)
        custody = Custody(
            network=network, org=org, journal=journal, twin=twin, store=store, prover=prover, views=views,
            ledger=connection, blocks=ledger, day_of=days.calendar.day, delivery=delivery, dispatcher=dispatcher,
        )  # fmt: skip
        audit = Audit(org, journal, store, vault, twin, connection)
        gateway = Gateway(
            org, network, clock, wallet, signer, connection, journal, store, registry, devices, discovered, facts,
            ingest, twin, windows, prover, anchoring, days.calendar, outbox, relay, projections, revocation, views,
            dispatcher, delivery, custody, audit, adapters,
        )  # fmt: skip
        if level < Level.SERVING:
            if level > Level.LOOKING:
                await _caught_up(projections, ledger)
                await days.read()
            yield gateway
            return
        await stack.enter_async_context(
            _running(
                [_follow(journal, twin), _follow(journal, windows), days.run(), anchoring.run(), delivery.run(journal)]
            )
        )

        async def taking(adapter: Adapter) -> None:
            if unknown:
                await _first_seen(projections, ledger)
            await adapter.run(ingest)

        stack.push_async_callback(ingest.close)
        gaps = GapFilling(Gaps(store, org), devices, checks, ingest, journal, market_now, _reach_ms(limits))
        await gaps.note(adapters)
        await days.known(0 if away else CALENDAR_S)  # what has waited in the broker is late by the calendar
        unknown = away and projections.block < 0
        if unknown:
            log.warning("%s's gateway has seen nothing of the ledger yet: it takes no readings before", org)
        stack.push_async_callback(learn, facts, adapters, wall_ms)  # what was told last, once they have stopped
        await stack.enter_async_context(_running([taking(adapter) for adapter in adapters.values()]))
        await stack.enter_async_context(dispatcher)
        upkeep = _upkeep(journal, outbox, twin, market_now, limits.retention_days * DAY_MS)
        discovering = keep_discovering(discovered, adapters, wall_ms)
        learning = keep_learning(facts, adapters, wall_ms)
        await stack.enter_async_context(
            _running(
                [
                    activations.run(),
                    openings.run(),
                    watching.run(),
                    upkeep,
                    discovering,
                    learning,
                    gaps.keep(adapters),
                ]
            )
        )
        yield gateway


def _refuse_loss(home: Path, readings: int) -> None:
    """A journal with entries has a store and a vault beside it: made anew, they would know no device and no salt. Also
    without any reading the store knows what is enrolled; it is made before the vault."""
    store, vault = home / "store.db", home / "vault.db"
    if not _filled(store) and (readings or _filled(vault)):
        known = f"{home / 'journal.db'} holds readings" if readings else f"{vault} is there"
        lost, path = "enrolments and the outbox", store
    elif readings and not _filled(vault):
        known = f"{home / 'journal.db'} holds readings"
        lost, path = "the salts of its readings", vault
    else:
        return
    raise Damaged(
        f"{path} is missing or empty, but {known}: {lost} would be lost. Put the whole folder back from a backup"
    )


def _filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


async def _follow(journal: SqliteJournal, consumer: Consumer) -> None:
    """Like `follow`; where nothing can be written now the same entries are tried again."""
    while True:
        try:
            await follow(journal, consumer)
        except (JournalUnavailable, StoreUnavailable) as error:
            log.warning("%s stands at journal entry %s: %s; trying again", consumer.name, consumer.position, error)
            await asyncio.sleep(RETRY_S)


async def _upkeep(
    journal: SqliteJournal, outbox: Outbox, twin: Twin, market_now: Callable[[], int], retention_ms: int
) -> None:
    """Once an hour: drop what is older than the retention, never what a consumer still needs or what is open.

    Journal and outbox by wall time, the twin's history by the readings' instants, which are market time.
    """
    while True:
        await asyncio.sleep(3600)
        before = wall_ms() - retention_ms
        try:
            entries, intents = await journal.truncate(before), await outbox.purge(before)
            readings = await twin.prune(market_now() - retention_ms)
        except (JournalUnavailable, StoreUnavailable) as error:
            log.warning("what is beyond its retention cannot be dropped now: %s", error)
            continue
        if entries or intents or readings:
            log.info(
                "beyond their retention: %s journal entries, %s outbox entries, %s readings of the twin dropped",
                entries,
                intents,
                readings,
            )


class _FleetPlan:
    """The configured batteries, as far as they are enrolled and neither suspended nor revoked; they are looked up when
    an order is planned."""

    def __init__(
        self, batteries: Sequence[BatteryConfig], devices: Enrolments, registry: Registry, clock: MarketClock
    ) -> None:
        self._batteries = batteries
        self._devices = devices
        self._registry = registry
        self._clock = clock

    def commands(self, order: DispatchOrder) -> Sequence[Planned]:
        known = [(battery, self._devices.named(battery.device)) for battery in self._batteries]
        units = tuple(
            Unit(battery.connection, record.did, battery.rated_w, battery.capacity_wh * 3600)
            for battery, record in known
            if record is not None
        )
        if not units:
            raise NoCapacity(f"order {order.order_id}: none of {len(known)} configured batteries is enrolled")
        credentials = {unit.did: split_did(unit.did)[1] for unit in units}
        available: Callable[[str], bool] = lambda did: not self._registry.out(did)  # noqa: E731
        return ProportionalPlan(Fleet(units), credentials, self._clock.wall, available).commands(order)


class _Days:
    """Keeps the market calendar as the ledger publishes it."""

    def __init__(self, ledger: Ledger, remembered: Remembered) -> None:
        self._remembered = remembered
        self.calendar = Calendar()
        try:
            for day in _days(remembered.read()):
                self.calendar.add(day)
        except (ValueError, TypeError, AttributeError):
            log.warning("the remembered calendar cannot be read; the ledger is asked")
        self._ledger = ledger
        self.news = News("calendar.published")
        self._read = asyncio.Event()

    async def run(self) -> None:
        while True:
            await self.news.wait()
            try:
                await self.read()
            except LedgerError as error:
                log.warning("the calendar cannot be read: %s; trying again", error)
                self.news.again()
                await asyncio.sleep(1)
            else:
                self._read.set()

    async def known(self, seconds: float) -> None:
        """Wait until the calendar has been read once, at most so long: a ledger that is away must not keep readings
        out."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._read.wait(), seconds)

    async def read(self) -> None:
        published = await self._ledger.evaluate("calendar.days", {})
        for day in _days(published):
            self.calendar.add(day)
        await asyncio.to_thread(self._remembered.keep, published)


def _days(published: Any) -> list[CalendarDay]:
    """The days of `calendar.days`; none of None."""
    return [
        CalendarDay.model_validate({key: value for key, value in day.items() if key != "v"}) for day in published or ()
    ]


async def _first_seen(projections: Projections, ledger: LedgerHost) -> None:
    """Until the projections have caught up with a ledger that did not answer before."""
    while True:
        try:
            await _caught_up(projections, ledger)
            return
        except LedgerUnavailable:
            await asyncio.sleep(RETRY_S)


async def _caught_up(projections: Projections, ledger: LedgerHost) -> None:
    """Block 0 has no events, hence nothing to wait for."""
    newest = await ledger.height() - 1
    if newest > 0:
        await projections.reached(newest)


@asynccontextmanager
async def _running(works: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run these until the block ends, then cancel them; the failure of one ends the block.

    What the block itself raises goes on as it is, not wrapped in a group.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            failure = error
        finally:
            for task in tasks:
                task.cancel()
    if failure is not None:
        raise failure


def _reach_ms(config: IngestConfig) -> int:
    """How far back gaps are filled: never so far that it would be refused as stale when it arrives."""
    return min(config.fill_gaps_days * DAY_MS, config.stale_after_days * DAY_MS - HOUR_MS)


def _limits(config: IngestConfig) -> Limits:
    return Limits(
        frame_bytes=config.max_frame_bytes,
        queue_frames=config.queue_frames,
        queue_bytes=config.queue_bytes,
        future_ms=config.future_tolerance_s * 1000,
        stale_ms=config.stale_after_days * DAY_MS,
    )


@dataclass
class Site:
    """One process: the ledger and its gateways."""

    folder: Path
    network: str
    clock: MarketClock
    ledger: LedgerHost
    gateways: dict[str, Gateway]
    """Those that run; all of `orgs` when the site is up."""
    orgs: tuple[str, ...] = ()
    http_port: int = 0

    def checks(self) -> Iterable[Check]:
        yield Check("ledger", not self.ledger.trouble, self.ledger.trouble)
        for org in self.orgs:
            if org not in self.gateways:
                yield Check(f"{org} gateway", False, "it has not started, or is ending")
        for gateway in self.gateways.values():
            yield from gateway.checks()

    def gauges(self) -> Iterable[Gauge]:
        for gateway in self.gateways.values():
            yield from gateway.gauges()


@asynccontextmanager
async def open_site(
    folder: Path,
    config: Config,
    level: Level = Level.SERVING,
    *,
    http_port: int | None = None,
    patient: bool = False,
) -> AsyncIterator[Site]:
    """Open everything that the configuration names and run it until the block ends, as far as `level` says.

    `http_port` stands for the configuration's; 0 takes a free one, which the configuration's 0 does not.
    `patient`: where the ledger does not answer it is waited for. A folder that knows its network is up all the same,
    and takes readings; one that does not (its first start) is not up before, only its operators' endpoints are.
    """
    async with AsyncExitStack() as stack:
        ledger: LedgerHost = UnaskedHost(config.ledger.kind)
        if level > Level.LOOKING:
            ledger = await stack.enter_async_context(open_ledger(folder, config))
        wallet = wallet_of(folder, config.gateways[0].org, config.passphrase)
        identity = wallet.find(GATEWAY)
        if identity is None:
            raise ConfigError(
                f"{folder / config.gateways[0].org / 'keys'} holds no gateway key: `flexrelay init` makes one"
            )
        if patient:
            await stack.enter_async_context(_running([ledger.failing()]))
        orgs = tuple(section.org for section in config.gateways)
        site = Site(folder, config.network, MarketClock(), ledger, {}, orgs)
        if level >= Level.SERVING and (config.http.port or http_port is not None):
            port = config.http.port if http_port is None else http_port
            server = OperatorServer([site], config.http.host, port)
            site.http_port = await stack.enter_async_context(server.serving())
        connect = ledger.connect_later if patient else ledger.connect
        reader = await connect(config.gateways[0].org, wallet.signer(identity.did))
        remembered = Remembered(folder / "network.json")
        if level > Level.LOOKING:
            record, asked = await network_record(reader, remembered, patient)
        else:
            record, asked = known_network(remembered), True
        if record["network"] != config.network:
            raise ConfigError(
                f"network: the ledger in {folder} is of network {record['network']}, not {config.network}"
            )
        if not asked:
            await stack.enter_async_context(_running([confirmed(reader, record, folder)]))
        site.clock = MarketClock(**record["clock"])
        for section in config.gateways:
            gateway = open_gateway(
                folder, section, config.network, ledger, site.clock, config.passphrase, level, patient=patient
            )
            with of_gateway(section.org):
                site.gateways[section.org] = await stack.enter_async_context(gateway)
            stack.callback(site.gateways.pop, section.org)
        yield site
