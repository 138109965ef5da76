"""The adapter: sockets, message layer, server and sink put together; what has to wait, waits here."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from flexrelay_adapters.lwm2m.bootstrap import Bootstrap
from flexrelay_adapters.lwm2m.clock import set_clock
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.blockwise import Assemblies, complete
from flexrelay_adapters.lwm2m.coap.codes import CONTENT_FORMAT, GET
from flexrelay_adapters.lwm2m.coap.layer import Exchange, MessageLayer, NoAnswer, Timing
from flexrelay_adapters.lwm2m.coap.message import Option, path_options
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.coap.udp import UdpEndpoint
from flexrelay_adapters.lwm2m.codec import Lwm2mCodec, Override, channel
from flexrelay_adapters.lwm2m.commands import Commander
from flexrelay_adapters.lwm2m.config import AttributesConfig, Lwm2mConfig
from flexrelay_adapters.lwm2m.dtls.transport import DtlsTransport
from flexrelay_adapters.lwm2m.firewall import NOT_TAKEN, Firewall
from flexrelay_adapters.lwm2m.formats import FormatError
from flexrelay_adapters.lwm2m.intake import Intake, IntakeStats
from flexrelay_adapters.lwm2m.keeper import Keeper
from flexrelay_adapters.lwm2m.nameplate import has_nameplate, read_nameplate
from flexrelay_adapters.lwm2m.objects import OBSERVED
from flexrelay_adapters.lwm2m.observing import Observing, wanted
from flexrelay_adapters.lwm2m.operations import Operations, Refused
from flexrelay_adapters.lwm2m.plain import PlainTransport
from flexrelay_adapters.lwm2m.registration import Registration, Registrations
from flexrelay_adapters.lwm2m.server import PROTOCOL, Server
from flexrelay_adapters.lwm2m.store import RegistrationStore
from flexrelay_sdk import ClockState, Codec, Command, CommandUpdate, DeviceFacts, Frame, Outcome, Receipt, Sink

log = logging.getLogger(__name__)

TIDY_S = 5.0
FETCHES = 16
"""Notifications of one device that may wait for the rest of their bodies; others must come again."""
NAMEPLATE_S = 86_400.0
"""What a device says of itself is read again after that: batteries empty."""
NAMEPLATE_AGAIN_S = 3_600.0
"""The same when it did not answer."""


class Lwm2mAdapter:
    """`Adapter`, `CommandTarget`, `CommandEnder`, `Discoverer`, `TimeSetter` and `FactTeller`: an LwM2M server. `clock`
    is wall-clock UTC seconds."""

    def __init__(self, config: Lwm2mConfig, *, clock: Callable[[], float] = time.time) -> None:
        self.name = config.name
        self.protocol = PROTOCOL
        self.config = config
        self._clock = clock
        self._codec = Lwm2mCodec(
            {
                path: Override(override.register_ or "", override.unit, override.negate)
                for path, override in config.overrides.items()
            }
        )
        allow = config.coap.allow if config.coap is not None else ()
        self.firewall = Firewall(allow, config.refused_for_s, time.monotonic)
        self.registrations = Registrations(config.max_devices, config.awake_s)
        self._assemblies = Assemblies(
            most=1_000, most_bytes=config.max_pending_bytes, body_bytes=config.max_payload_bytes
        )
        self.server = Server(
            self, self.registrations, self.firewall, self._assemblies, wall=clock, monotonic=time.monotonic
        )
        self.layer = MessageLayer(
            self.server,
            timing=Timing(ack_timeout_s=config.ack_timeout_s, rate=config.rate, burst=config.burst),
            replies=config.reply_cache,
            reply_bytes=config.reply_cache_bytes,
            clock=time.monotonic,
        )
        self.server.layer = self.layer
        self.registrations.moved = self.layer.forget
        self.operations = Operations(self.layer, clock)
        self._observing = Observing(
            self.operations,
            lambda frame: self._offer(None, frame),
            clock,
            everywhere=AttributesConfig(pmin=config.pmin_s, pmax=config.pmax_s).given(),
            by_path={path: attributes.given() for path, attributes in config.attributes.items()},
        )
        self._commander = (
            Commander(config.commands, self.operations, self.registrations, clock)
            if config.commands is not None
            else None
        )
        self._bootstrap = (
            Bootstrap(config.bootstrap_file, self.operations, self.layer, self.server)
            if config.bootstrap_file is not None
            else None
        )
        self.plain = PlainTransport(self.firewall, self.layer.receive)
        self.dtls: DtlsTransport | None = None
        self._intake: Intake | None = None
        self._keeper: Keeper | None = None
        self._group: asyncio.TaskGroup | None = None
        self._observers: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(64)
        self._readers = asyncio.Semaphore(16)
        self._nameplates: dict[str, DeviceFacts] = {}
        self._online = asyncio.Event()

    def validate(self) -> None:
        """Check that the files exist. Raises ValueError naming the field."""
        coaps = self.config.coaps
        files = {"bootstrap_file": self.config.bootstrap_file}
        if coaps is not None:
            files |= {f"coaps.{field}": getattr(coaps, field) for field in ("psk_file", "ca", "certificate", "key")}
        for field, path in files.items():
            if path is not None and not path.is_file():
                raise ValueError(f"{field}: there is no file {path}")

    @property
    def endpoint(self) -> str:
        parts = []
        if self.config.coap is not None:
            parts.append(f"coap://{self.config.coap.host}:{self.coap_port or self.config.coap.port}")
        if self.config.coaps is not None:
            parts.append(f"coaps://{self.config.coaps.host}:{self.coaps_port or self.config.coaps.port}")
        return " ".join(parts)

    @property
    def coap_port(self) -> int:
        """The port that plain CoAP is bound to, 0 while it is not."""
        return self.plain.endpoint.address[1] if self.plain.endpoint is not None else 0

    @property
    def coaps_port(self) -> int:
        return self.dtls.port if self.dtls is not None else 0

    @property
    def connected(self) -> bool:
        """Whether the sockets are open."""
        return self._online.is_set()

    async def wait_connected(self) -> None:
        await self._online.wait()

    @property
    def can_command(self) -> bool:
        return self._commander is not None

    @property
    def stats(self) -> IntakeStats:
        return self._intake.stats if self._intake is not None else IntakeStats()

    def channels_for(self, credential: str) -> Sequence[str]:
        """Where the device sends its readings."""
        return [f"{endpoint}/dp" for endpoint in self.endpoint.split()]

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if self._codec.reads(channel) else None

    def discover(self) -> "Discovery":
        """The credentials of the devices that are registered now, and of those that are turned away for a while because
        the gateway does not know them: an unknown device that sends at once is never registered for long."""
        registered = [registration.credential for registration in self.registrations]
        return Discovery(list(dict.fromkeys([*registered, *self.firewall.refused()])))

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`: what stood in the device objects when they were read last."""
        return list(self._nameplates.items())

    async def run(self, sink: Sink) -> None:
        """Serve until cancelled. Raises OSError where an address cannot be bound."""
        config = self.config
        store = RegistrationStore(config.state or Path(f"lwm2m-{self.name}.db"))
        try:
            self._intake = Intake(
                self._codec,
                batch=config.batch,
                most=config.max_pending,
                most_bytes=config.max_pending_bytes,
                backoff_s=config.backoff_s,
                done=self._stored,
                failed=self.layer.release,
            )
            self._keeper = Keeper(store, answer=self.server.answer, release=self.layer.release)
            try:
                self._open()
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    group.create_task(self._intake.run(sink), name=f"{self.name} readings")
                    group.create_task(self._keeper.run(), name=f"{self.name} registrations")
                    group.create_task(self._tidy(), name=f"{self.name} tidy")
                    self._resume(store.load())
                    self._online.set()
            finally:
                self._online.clear()
                self._group = None
                self._close()
        finally:
            store.close()

    def _open(self) -> None:
        config = self.config
        if config.coap is not None:
            self.plain.open(config.coap.host, config.coap.port)
        if config.coaps is not None:
            self.dtls = DtlsTransport(config.coaps, self.layer.receive, gone=self._gone)
            self.dtls.open()
        buffers = [endpoint.buffer_bytes for endpoint in self._endpoints()]
        log.info("%s: serves %s, receive buffers of %s bytes", self.name, self.endpoint, buffers)

    def _endpoints(self) -> list[UdpEndpoint]:
        found = [self.plain.endpoint, self.dtls.endpoint if self.dtls is not None else None]
        return [endpoint for endpoint in found if endpoint is not None]

    def _close(self) -> None:
        self.plain.close()
        if self.dtls is not None:
            self.dtls.close()
            self.dtls = None

    def _resume(self, stored: Sequence[Registration]) -> None:
        """Go on with devices that were registered before a restart."""
        now = self._clock()
        for registration in stored:
            if registration.expires_at <= now:
                if self._keeper is not None:
                    self._keeper.remove(None, registration)
                continue
            if not registration.secure and self.config.coap is not None:
                if not self.firewall.admits(registration.address[0]):
                    continue
                registration.peer = self.plain.peer(registration.address)
            self.registrations.adopt(registration)
            self._observing.expect(registration, self._wanted(registration))
            if self.registrations.reachable(registration, now):
                self.observe(registration)

    # What the server asks for (server.Duties)

    def store(
        self, exchange: Exchange, registration: Registration, *, new: bool, answer: tuple[int, list[Option]]
    ) -> None:
        if self._keeper is None:
            self.layer.release(exchange)
            return
        registration.unobserved |= new
        due = registration.unobserved or self._unread(registration)
        then = (lambda: self.observe(registration)) if due else None
        self._keeper.keep(exchange, registration, whole=new, answer=answer, then=then)

    def remove(self, exchange: Exchange | None, registration: Registration) -> None:
        self.registrations.remove(registration)
        observer = self._observers.pop(registration.id, None)
        if observer is not None:
            observer.cancel()
        if self._keeper is not None:
            self._keeper.remove(exchange, registration)

    def _gone(self, peer: Peer) -> None:
        self.layer.forget(peer)
        self.registrations.lost(peer)

    def take(self, exchange: Exchange, frame: Frame) -> None:
        if not self._offer(exchange, frame):
            self.layer.release(exchange)

    def fetch_rest(self, exchange: Exchange, registration: Registration, path: str) -> None:
        if len(registration.fetches) >= FETCHES:
            self.layer.release(exchange)
            return

        async def fetch() -> None:
            peer, message = exchange
            try:
                async with registration.fetching, self._turns:  # of all devices' turns it has one
                    whole = await complete(self.layer, peer, GET, path_options(path), b"", message)
            except NoAnswer as error:
                log.info("%s: the rest of a notification of %s did not come: %s", self.name, path, error)
                self.layer.release(exchange)
                return
            content_format = whole.uint(CONTENT_FORMAT) or 0
            instant = registration.instant(self._clock())
            frame = Frame(PROTOCOL, peer.credential, whole.payload, instant, channel(path, content_format))
            self.take(exchange, frame)

        task = self._spawn(fetch(), f"{self.name} notification of {registration.credential}")
        if task is not None:
            registration.fetches.add(task)
            task.add_done_callback(registration.fetches.discard)

    def bootstrap(self, exchange: Exchange, body: bytes) -> None:
        if self._bootstrap is None:
            self.server.answer(exchange, codes.NOT_FOUND)
        else:
            self._spawn(self._bootstrap.serve(exchange), f"{self.name} bootstrap of {exchange.peer.credential}")

    # Readings

    def _offer(self, exchange: Exchange | None, frame: Frame) -> bool:
        return self._intake is not None and self._intake.offer(exchange, frame)

    def _stored(self, exchange: Exchange, frame: Frame, receipt: Receipt) -> None:
        """The frame is on disk: now the device may be told."""
        request = exchange.message.code < 32
        if receipt.outcome is not Outcome.DEAD_LETTER:
            if request:
                self.server.answer(exchange, codes.CHANGED)
            else:
                self.layer.acknowledge(exchange)
            return
        if receipt.reason in NOT_TAKEN:
            self.firewall.refuse(frame.credential)
            registration = self.registrations.by_credential.get(frame.credential)
            if registration is not None:
                self.remove(None, registration)
            if request:
                self.server.answer(exchange, codes.FORBIDDEN, payload=receipt.reason.encode())
            else:
                self.layer.reject(exchange)
        elif request:
            self.server.answer(exchange, codes.BAD_REQUEST, payload=receipt.reason.encode())
        else:
            self.layer.acknowledge(exchange)

    # Observations

    def _wanted(self, registration: Registration) -> list[str]:
        configured = self.config.observe
        if configured is not None and not configured:
            return []
        return wanted(registration, configured or (), OBSERVED)

    def observe(self, registration: Registration) -> None:
        """Set up what is not observed yet, then read what the device says of itself, where that is due."""
        running = self._observers.get(registration.id)
        if running is not None and not running.done():
            return
        paths = self._wanted(registration) if registration.unobserved else []
        registration.unobserved = False
        if not paths and not self._unread(registration):
            return

        async def observe() -> None:
            try:
                if paths:
                    async with self._turns:
                        await self._observing.set_up(registration, paths)
                if self._unread(registration):
                    async with self._readers:
                        await self._read_nameplate(registration)
            except NoAnswer as error:
                log.info("%s: %s; again with its next update", self.name, error)
                registration.unobserved = True
            finally:
                self._observers.pop(registration.id, None)

        task = self._spawn(observe(), f"{self.name} observes {registration.credential}")
        if task is not None:
            self._observers[registration.id] = task

    def _unread(self, registration: Registration) -> bool:
        due = self._clock() - registration.nameplate_at > NAMEPLATE_S
        return due and self.config.nameplate and has_nameplate(registration.objects)

    async def _read_nameplate(self, registration: Registration) -> None:
        peer = registration.peer
        if peer is None:
            return
        registration.nameplate_at = self._clock()
        content_format = codes.TLV if registration.version == "1.0" else codes.SENML_CBOR
        try:
            facts = await read_nameplate(self.operations, peer, content_format)
        except (Refused, FormatError) as error:
            log.info("%s: %s does not tell what it is: %s", self.name, registration.credential, error)
            return
        except NoAnswer as error:  # it fell asleep; or it never answers, and then it is not asked at each update
            log.info("%s: %s; what it is, is asked later", self.name, error)
            registration.nameplate_at -= NAMEPLATE_S - NAMEPLATE_AGAIN_S
            return
        self._nameplates.pop(registration.credential, None)
        self._nameplates[registration.credential] = facts
        if len(self._nameplates) > self.config.max_devices:
            del self._nameplates[next(iter(self._nameplates))]

    # Commands

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        """See `CommandTarget`. Raises ValueError when the adapter is not configured to command."""
        if self._commander is None:
            raise ValueError(f"{self.name} commands nothing; set `commands`")
        await self._commander.execute(command, on_update)

    def must_end(self, command: Command) -> bool:
        """See `flexrelay_sdk.CommandEnder`."""
        return self._commander is not None and self._commander.must_end(command)

    async def end(self, command: Command, before: Command | None = None) -> None:
        """See `flexrelay_sdk.CommandEnder`."""
        if self._commander is not None and self.must_end(command):
            await self._commander.end(command, before)

    async def sync_time(self, credential: str) -> ClockState:
        """See `TimeSetter`: resource Current Time of the device object."""
        registration = self.registrations.by_credential.get(credential)
        if registration is None:
            raise ValueError(f"{credential[:80]!r} is not registered at {self.name}")
        peer = registration.peer
        if peer is None or not self.registrations.reachable(registration, self._clock()):
            raise ConnectionError(f"{credential} sleeps")
        content_format = codes.TLV if registration.version == "1.0" else codes.SENML_CBOR
        try:
            return await set_clock(self.operations, peer, content_format, self._clock)
        except NoAnswer as error:
            raise ConnectionError(str(error)) from None

    # Housekeeping

    def counters(self) -> dict[str, int]:
        """What has come and what became of it since the start, for people and metrics."""
        endpoints = self._endpoints()
        stats = self.stats
        counted = {
            "devices": len(self.registrations),
            "sessions": len(self.dtls) if self.dtls is not None else 0,
            "datagrams": sum(endpoint.received for endpoint in endpoints),
            "unsent": sum(endpoint.unsent for endpoint in endpoints),
            "kernel_drops": sum(max(0, endpoint.kernel_drops) for endpoint in endpoints),
            "frames": stats.frames,
            "acknowledged": stats.acknowledged,
            "full": stats.full,
            "sink_refusals": stats.sink_refusals,
        }
        parts = (self.layer.counts, self.firewall.counts, self.dtls.counts if self.dtls is not None else {})
        for part in parts:
            for name, count in part.items():
                counted[name] = counted.get(name, 0) + count
        return counted

    async def _tidy(self) -> None:
        drops = 0
        while True:
            await asyncio.sleep(TIDY_S)
            self.layer.tidy()
            dropped = sum(max(0, endpoint.kernel_drops) for endpoint in self._endpoints())
            if dropped > drops:
                log.warning(
                    "%s: the kernel dropped %d datagrams: they came faster than read", self.name, dropped - drops
                )
                drops = dropped
            self._assemblies.tidy(time.monotonic())
            for registration in self.registrations.expired(self._clock()):
                log.info("%s: registration of %s has expired", self.name, registration.credential)
                self.remove(None, registration)

    def _spawn(self, work: "Awaitable[None]", name: str) -> "asyncio.Task[None] | None":
        async def guarded() -> None:
            try:
                await work
            except Exception:  # one device's matter must not end the others'
                log.exception("%s failed", name)

        if self._group is None:
            return None
        return self._group.create_task(guarded(), name=name)


class Discovery:
    """Credentials, as an async iterator."""

    def __init__(self, credentials: Sequence[str]) -> None:
        self._credentials = iter(credentials)

    def __aiter__(self) -> "Discovery":
        return self

    async def __anext__(self) -> str:
        try:
            return next(self._credentials)
        except StopIteration:
            raise StopAsyncIteration from None
