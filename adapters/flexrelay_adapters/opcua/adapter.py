"""The adapter: server → frames → sink → acknowledgement; commands as writes and method calls; history after an outage.

A notification is acknowledged to the server with the first publish request after the sink has returned. At most
`publish_requests` responses wait here; while the sink is slow no more are asked for and the server queues, as long as
the queues of its monitored items reach.

After a lost connection the old subscription is taken over (TransferSubscriptions) and what was not acknowledged comes
again (Republish). Where the server has lost it, a new one is made and what happened meanwhile is read from its
history, where it keeps one.
"""

import asyncio
import hashlib
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from flexrelay_adapters._commands import Newest
from flexrelay_adapters.opcua._stack import Connection, Monitored, Subscription
from flexrelay_adapters.opcua.browsing import Found, find_devices
from flexrelay_adapters.opcua.codec import NodeCodec
from flexrelay_adapters.opcua.commands import OnUpdate, carry_out
from flexrelay_adapters.opcua.config import CommandRoute, OpcuaConfig, Security
from flexrelay_adapters.opcua.framing import PROTOCOL, Framing
from flexrelay_adapters.opcua.history import read_device
from flexrelay_adapters.opcua.nameplate import read_nameplate
from flexrelay_adapters.opcua.refusals import ConnectionLost
from flexrelay_adapters.opcua.state import Resume
from flexrelay_adapters.opcua.trust import TrustList
from flexrelay_adapters.opcua.wire import BAD, Publish
from flexrelay_sdk import Codec, Command, DeviceFacts, Frame, Sink, SinkUnavailable
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

_NO_FILTER = frozenset({"BadMonitoredItemFilterUnsupported", "BadMonitoredItemFilterInvalid", "BadFilterNotAllowed"})
RETRY_ITEMS_S = 60.0
"""After it the variables that the server did not let us watch are tried again."""
NAMEPLATE_S = 86_400.0
"""What a device is, is not read again before that, however often the connection is lost."""
SAVE_S = 2.0
"""Between two writings of what is remembered over a restart, at least."""
_TOO_MANY = 0x8078_0000
"""BadTooManyPublishRequests."""
_AHEAD = "future"
"""Why the gateway refuses a time that lies ahead."""
_BY_TIME = frozenset({_AHEAD, "stale"})
START_MS = 2000
"""Two starts that a server tells so near each other are one: those that reckon it from how long they have been up tell
it a little differently each time."""
_MARGIN = 2.5
"""Keep-alive times without a response after which the connection counts as dead."""


@dataclass(slots=True)
class OpcuaStats:
    """Counters since the adapter was made."""

    connections: int = 0
    subscriptions: int = 0
    """Made anew; taken over ones do not count."""
    transfers: int = 0
    publishes: int = 0
    frames: int = 0
    changes: int = 0
    acknowledged: int = 0
    """Notifications."""
    republished: int = 0
    history_frames: int = 0
    sink_refusals: int = 0


class OpcuaAdapter:
    """`Adapter`, `CommandTarget`, `Discoverer`, `Backfiller` and `FactTeller` over one OPC UA server.

    `clock` is wall-clock UTC ms. Raises ValueError when the node ids of a device do not fit into a frame.
    """

    def __init__(self, config: OpcuaConfig, *, clock: Callable[[], int] = wall_ms) -> None:
        self.name = config.name
        self.protocol = PROTOCOL
        self.config = config
        self.stats = OpcuaStats()
        self.refused: dict[tuple[str, str], str] = {}
        """(device, register) → why the server does not let us watch its variable."""
        self._channel = f"{config.url}#{config.name}"
        self._codec = NodeCodec(config)
        self._framing = Framing(config, self._channel)
        self._trust = TrustList(config.pki) if config.security is not Security.NONE else None
        self._clock = clock
        self._connection: Connection | None = None
        self._online = asyncio.Event()
        self._failures = 0
        self._subscription: Subscription | None = None
        self._sequence = 0
        """The newest sequence number of the subscription that is on disk."""
        self._unacknowledged: list[tuple[int, int]] = []
        """(subscription, sequence) of what is on disk and has not been acknowledged yet."""
        self._file = config.state / f"{config.name}.json"
        self._saved_at = 0.0
        self.trouble = ""
        """Why it is not connected now."""
        self._under_way: set[str] = set()
        self._newest = Newest()
        self._nameplates: dict[str, DeviceFacts] = {}
        self._read_at: dict[str, float] = {}
        self.publish_requests = config.publish_requests
        """How many publish requests wait at the server: fewer than configured when it takes no more."""

    def validate(self) -> None:
        """Check what the model cannot: the certificate and the files. Raises ValueError naming the field."""
        config = self.config
        for field in ("user_certificate", "user_key"):
            path = getattr(config, field)
            if path is not None and not path.is_file():
                raise ValueError(f"{field}: there is no file {path}")
        if self._trust is not None:
            try:
                self._trust.check_own(config.application_uri)
            except ValueError as error:
                raise ValueError(f"pki: {error}") from None

    @property
    def endpoint(self) -> str:
        return f"{self.config.url} ({self.trouble})" if self.trouble else self.config.url

    @property
    def connected(self) -> bool:
        return self._online.is_set()

    @property
    def can_command(self) -> bool:
        return any(device.commands for device in self.config.devices.values())

    async def wait_connected(self) -> None:
        """Return once the adapter is connected and subscribed."""
        await self._online.wait()

    def channels_for(self, credential: str) -> Sequence[str]:
        """The server's URL, when the credential is one of this adapter's devices."""
        return [self._channel] if self.config.device(credential) is not None else []

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if channel == self._channel else None

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`: what the server says of each configured device."""
        return [(self.config.credential(name), facts) for name, facts in self._nameplates.items()]

    async def run(self, sink: Sink) -> None:
        """Connect, feed the sink and reconnect with back-off, until cancelled. What else the sink raises ends it."""
        self._resume()
        while True:
            try:
                await self._serve(sink)
            except ConnectionLost as error:
                again = self.trouble == str(error)
                self.trouble = str(error)
                log.log(logging.DEBUG if again else logging.WARNING, "%s: %s", self.name, error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # Python 3.11's wait_for can lose a cancellation
            await self._back_off()

    def _resume(self) -> None:
        """Go on with the subscription of an earlier process, and where its readings ended."""
        found = Resume.read(self._file)
        if found.layout != self._layout or self._subscription is not None:
            return
        self._framing.resume(found.newest)
        if found.subscription:
            self._subscription = Subscription(
                found.subscription, found.publishing_ms, found.keep_alive_s, found.server_started
            )
            self._sequence = found.sequence

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        now = self._subscription
        resume = Resume(self._layout, newest=dict(self._framing.newest))
        if now is not None:
            resume.subscription, resume.sequence = now.number, self._sequence
            resume.publishing_ms, resume.keep_alive_s = now.publishing_ms, now.keep_alive_s
            resume.server_started = now.server_started
        try:
            resume.write(self._file)
        except OSError as error:
            log.warning("%s: %s cannot be written: %s", self.name, self._file, error.strerror)

    @property
    def _layout(self) -> str:
        """Changes with whatever gives the client handles another meaning."""
        nodes = [f"{device} {source.node}" for device, _, source in self.config.nodes()]
        return hashlib.sha256("\n".join([self.config.url, self.config.time, *nodes]).encode()).hexdigest()

    async def _back_off(self) -> None:
        most = min(self.config.backoff_max_s, self.config.backoff_min_s * 2 ** min(self._failures, 20))
        self._failures += 1
        await asyncio.sleep(most * (0.5 + random.random() / 2))  # noqa: S311  # jitter, not a secret

    async def _serve(self, sink: Sink) -> None:
        connection = await Connection.open(self.config, self._trust)
        helpers: list[asyncio.Task[None]] = []
        subscribed = False
        try:
            subscription, waiting = await self._subscribe(connection)
            subscribed = True
            self._connection = connection
            self.stats.connections += 1
            self.trouble = ""
            self._online.set()
            if waiting is None:
                await self._catch_up(connection, sink)
            else:
                await self._again(connection, subscription, waiting, sink)
            if self.refused:
                retrying = asyncio.create_task(
                    self._retry_items(connection, subscription), name=f"{self.name} variables"
                )
                helpers.append(retrying)
            helpers.append(asyncio.create_task(self._read_nameplates(connection), name=f"{self.name} nameplates"))
            await self._pump(connection, subscription, sink)
        finally:
            self._online.clear()
            self._connection = None
            self._save()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await connection.close(keep_subscriptions=subscribed)  # one that came to nothing does not stay behind

    async def _subscribe(self, connection: Connection) -> tuple[Subscription, tuple[int, ...] | None]:
        """The old subscription with what waits there, or (…, None) a new one."""
        known = self._subscription
        if known is not None and _same_start(known.server_started, await connection.started()):
            waiting = await connection.transfer(known.number)
            if waiting is not None:
                self.stats.transfers += 1
                return known, waiting
        subscription = await connection.subscribe()
        self.stats.subscriptions += 1
        self.refused = {}
        wanted = list(self._monitored(connection))
        await self._monitor(connection, subscription, wanted)
        if wanted and len(self.refused) == sum(len(device.registers) for device in self.config.devices.values()):
            raise ConnectionLost(
                f"{self.config.url}: the server lets us watch none of the configured variables, "
                f"{self._names()}: `flexrelay opcua browse` shows what it has"
            )
        if self.refused:
            log.warning("%s: the server does not let us watch %s", self.name, self._names())
        self._subscription, self._sequence, self._unacknowledged = subscription, 0, []
        self._save()
        return subscription, None

    def _names(self) -> str:
        first = [f"{device}.{register} ({why})" for (device, register), why in list(self.refused.items())[:5]]
        return ", ".join(first) + (f" and {len(self.refused) - 5} more" if len(self.refused) > 5 else "")

    def _monitored(self, connection: Connection) -> list[tuple[tuple[str, str], Monitored]]:
        config = self.config
        wanted = []
        for handle, (device, register, source) in enumerate(config.nodes(), 1):
            try:
                node = connection.resolve(source.node)
            except ValueError as error:
                self.refused[device, register] = str(error)
                continue
            item = Monitored(
                handle,
                node,
                config.sampling_ms if source.sampling_ms is None else source.sampling_ms,
                config.queue if source.queue is None else source.queue,
                source.deadband,
                source.deadband_percent,
                config.report == "time",
            )
            wanted.append(((device, register), item))
        return wanted

    async def _monitor(
        self, connection: Connection, subscription: Subscription, wanted: Sequence[tuple[tuple[str, str], Monitored]]
    ) -> None:
        items = [item for _, item in wanted]
        results = await connection.monitor(subscription.number, items)
        plain = [index for index, why in enumerate(results) if why in _NO_FILTER and items[index].by_time]
        if plain:  # this server reports by value only
            again = [replace(items[index], by_time=False) for index in plain]
            for index, why in zip(plain, await connection.monitor(subscription.number, again), strict=True):
                results[index] = why
        for (place, item), why in zip(wanted, results, strict=True):
            if why:
                self.refused[place] = f"{item.node.to_string()}: {why}"
            else:
                self.refused.pop(place, None)

    async def _retry_items(self, connection: Connection, subscription: Subscription) -> None:
        while self.refused:
            await asyncio.sleep(RETRY_ITEMS_S)
            missing = [(place, item) for place, item in self._monitored(connection) if place in self.refused]
            try:
                await self._monitor(connection, subscription, missing)
            except ConnectionLost as error:
                log.info("%s: %s", self.name, error)

    async def _read_nameplates(self, connection: Connection) -> None:
        """One after the other: it is a side matter."""
        first = {device: source.node for device, _, source in reversed(list(self.config.nodes()))}
        for device, node in first.items():
            if time.monotonic() - self._read_at.get(device, -NAMEPLATE_S) < NAMEPLATE_S:
                continue
            try:
                self._nameplates[device] = await read_nameplate(connection, node, alone=len(first) == 1)
            except ConnectionLost:
                return
            except Exception as error:  # a server's oddity in what nobody needs must not cost the readings
                log.info("%s: what %s is, cannot be read: %s", self.name, device, error)
            self._read_at[device] = time.monotonic()

    async def _again(
        self, connection: Connection, subscription: Subscription, waiting: Sequence[int], sink: Sink
    ) -> None:
        """What the server still keeps unacknowledged of a subscription that was taken over."""
        newer = [sequence for sequence in waiting if sequence > self._sequence]
        if newer and min(newer) > self._sequence + 1:
            log.warning("%s: the server has dropped notifications that were not acknowledged", self.name)
            await self._catch_up(connection, sink)
        for sequence in sorted(waiting):
            if sequence <= self._sequence:
                self._unacknowledged.append((subscription.number, sequence))  # on disk; only the server does not know
                continue
            publish = await connection.republish(subscription.number, sequence)
            if publish is not None:
                self.stats.republished += 1
                self._unacknowledged += await self._store([publish], sink)

    async def _pump(self, connection: Connection, subscription: Subscription, sink: Sink) -> None:
        acknowledge, self._unacknowledged = self._unacknowledged, []
        lost = asyncio.create_task(connection.lost.wait(), name=f"{self.name} connection")
        under_way: deque[asyncio.Task[Publish]] = deque()
        patience = max(_MARGIN * subscription.keep_alive_s, self.config.timeout_s)
        try:
            while True:
                while len(under_way) < self.publish_requests:
                    under_way.append(asyncio.create_task(connection.publish(acknowledge), name=f"{self.name} publish"))
                    acknowledge = []
                first: asyncio.Task[Publish] = under_way[0]
                if not first.done():
                    await asyncio.wait({first, lost}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not first.done():
                    why = "the server does not answer any more" if lost.done() else f"nothing came for {patience:.0f} s"
                    raise ConnectionLost(f"{self.config.url}: {why}")
                ready: list[Publish] = []
                end: ConnectionLost | None = None
                while end is None and under_way and under_way[0].done():
                    try:
                        publish = self._published(under_way.popleft())
                    except ConnectionLost as error:
                        end = error  # what came before it is stored all the same
                    else:
                        ready += [publish] if publish is not None else []
                acknowledge += await self._store(ready, sink)
                if end is not None:
                    raise end
                self._failures = 0
        finally:
            self._unacknowledged = acknowledge
            for task in (lost, *under_way):
                task.cancel()
            await asyncio.gather(lost, *under_way, return_exceptions=True)

    def _published(self, task: asyncio.Task[Publish]) -> Publish | None:
        """What a publish request brought; None when the server takes fewer of them. Raises ConnectionLost."""
        try:
            return task.result()
        except ConnectionLost as error:
            if error.status != _TOO_MANY or self.publish_requests == 1:
                raise
            self.publish_requests -= 1
            return None

    async def _store(self, ready: Sequence[Publish], sink: Sink) -> list[tuple[int, int]]:
        """Return what may be acknowledged, when it is on disk. While the sink refuses, it is tried again with what is
        here, and the server queues."""
        now = self._clock()
        self.stats.publishes += len(ready)
        frames: list[Frame] = []
        acknowledge = []
        for publish in ready:
            for changes in publish.changes:
                framed = self._framing.frames(changes, now)
                self.stats.changes += changes.items
                frames += framed.frames
                self._framing.told(framed)
            if publish.changes:
                acknowledge.append((publish.subscription, publish.sequence))
        if frames:
            await self._put(sink, frames)
        for _, sequence in acknowledge:
            self._sequence = sequence
        self.stats.acknowledged += len(acknowledge)
        if acknowledge and time.monotonic() - self._saved_at > SAVE_S:
            self._save()
        for publish in ready:
            if publish.status is not None and publish.status & BAD:  # a Good one tells of a transfer, which is ours
                self._subscription = None
                raise ConnectionLost(
                    f"{self.config.url}: the server has ended the subscription (0x{publish.status:08X})"
                )
        return acknowledge

    async def _put(self, sink: Sink, frames: Sequence[Frame]) -> None:
        failures = 0
        try:
            while True:
                try:
                    receipts = await sink.put(frames, self._codec)
                    break
                except SinkUnavailable as error:
                    self.stats.sink_refusals += 1
                    log.warning("%s: the gateway cannot store (%s); the server queues", self.name, error)
                    wait_s = self.config.backoff_min_s * 2 ** min(failures, 20)
                    await asyncio.sleep(min(self.config.backoff_max_s, wait_s))
                    failures += 1
        except BaseException:
            self._framing.forget()  # nobody knows what of it is on disk
            raise
        self.stats.frames += len(frames)
        others: list[Frame] = []
        for frame, receipt in zip(frames, receipts, strict=True):
            if receipt.reason == _AHEAD:
                self._framing.disown(frame.credential, self._clock())
            if receipt.reason in _BY_TIME:
                others += self._framing.apart(frame)
        if others:  # a wrong time costs no others of its publication
            await self._put(sink, others)

    async def _catch_up(self, connection: Connection, sink: Sink) -> None:
        """After an outage: what the server kept of it, before its new subscription tells anything."""
        if not self.config.history:
            return
        now = self._clock()
        earliest = now - self.config.history_s * 1000
        for device in sorted(self.config.devices):
            reach = {handle: self._framing.reach_ms(handle) for handle in self._framing.handles(device)}
            wanted = {handle: max(at + 1, earliest) for handle, at in reach.items() if at}
            if wanted:
                count = await self._read_history(connection, sink, device, wanted, now + 1)
                if count:
                    log.info("%s: %s frames of the history of %s", self.name, count, device)

    async def _read_history(
        self, connection: Connection, sink: Sink, device: str, from_ms: dict[int, int], until_ms: int
    ) -> int:
        count = 0
        async for items in read_device(connection, self.config, device, from_ms, until_ms):
            framed = self._framing.history(device, items, self._clock(), after_outage=True)
            self._framing.told(framed)
            await self._put(sink, framed.frames)
            count += len(framed.frames)
        self.stats.history_frames += count
        return count

    async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
        """See `flexrelay_sdk.Backfiller`. Raises ConnectionLost (a ConnectionError) while there is no connection."""
        if not self.config.history:
            raise ValueError(f"history of {self.name} is false: nothing is read from the server's history")
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"{self.config.url}: not connected")
        count = 0
        for device in sorted(self.config.devices):
            if not credentials or self.config.credential(device) in credentials:
                wanted = dict.fromkeys(self._framing.handles(device), from_ms)
                async for items in read_device(connection, self.config, device, wanted, until_ms):
                    frames = self._framing.history(device, items, self._clock()).frames
                    await sink.put(frames, self._codec)
                    count += len(frames)
        self.stats.history_frames += count
        return count

    async def browse(self, start: str = "i=85") -> AsyncIterator[Found]:
        """Objects with numeric variables, on a connection of its own. Raises ConnectionLost."""
        connection = await Connection.open(self.config, self._trust)
        try:
            async for found in find_devices(connection, start):
                yield found
        finally:
            await connection.close()

    async def discover(self) -> AsyncIterator[str]:
        """See `flexrelay_sdk.Discoverer`: objects none of whose variables is configured."""
        configured = {source.node for _, _, source in self.config.nodes()}
        async for found in self.browse():
            if not any(variable.node in configured for variable in found.variables):
                yield self.config.credential(found.path)

    async def online(self) -> Connection:
        """The connection, as soon as there is one."""
        while self._connection is None:
            await self._online.wait()
        return self._connection

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """See `flexrelay_sdk.CommandTarget`. Raises ValueError for a device or command that is not configured, or one
        that is under way."""
        route = self._route(command)
        if command.command_id in self._under_way:
            raise ValueError(f"command {command.command_id} is under way")
        self._under_way.add(command.command_id)
        try:
            await carry_out(command, route, self, self._newest, on_update, self._clock)
        finally:
            self._under_way.discard(command.command_id)

    def _route(self, command: Command) -> CommandRoute:
        name = self.config.device(command.credential)
        if name is None:
            raise ValueError(f"{command.credential!r} is not in the configuration of {self.name}")
        commands = self.config.devices[name].commands
        if command.name not in commands:
            known = ", ".join(sorted(commands)) or "none"
            raise ValueError(f"{name} takes no command {command.name}; configured are {known}")
        return commands[command.name]


def _same_start(one_ms: int, other_ms: int) -> bool:
    """Whether both are of one start of a server; what is not told is taken for the same."""
    return not one_ms or not other_ms or abs(one_ms - other_ms) <= START_MS
