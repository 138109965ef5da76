"""The adapter of one dialect: measures over MQTT and HTTP → sink → acknowledgement; commands and their results."""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from flexrelay_adapters._commands import Newest, begun
from flexrelay_adapters._instants import counting
from flexrelay_adapters.iotagent.codec import DialectCodec
from flexrelay_adapters.iotagent.commands import Ends, Pending, asked, payload_of
from flexrelay_adapters.iotagent.config import IotAgentConfig
from flexrelay_adapters.iotagent.dialect import Dialect, Result
from flexrelay_adapters.iotagent.frame import MAX_ATTRIBUTE, framed
from flexrelay_adapters.iotagent.gathering import Gathering
from flexrelay_adapters.iotagent.registry import Provisioned
from flexrelay_adapters.mqtt._client import KEPT, Connection, DirectConnection, Inbound, Session
from flexrelay_adapters.mqtt.commands import OnUpdate, Waiting
from flexrelay_adapters.mqtt.link import BrokerLink, Connect
from flexrelay_sdk import Codec, Command, CommandState, Decoded, DecodeError, Frame, Sink
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

_REMEMBERED: Final = 100_000
"""Devices of which it is remembered that they came over HTTP, and when readings got their time."""


@dataclass(slots=True)
class IotAgentStats:
    """Counters since the adapter was made."""

    frames: int = 0
    requests: int = 0
    refused: int = 0
    """HTTP requests that were turned away before the journal: wrong API key, too large, too many."""
    results: int = 0
    results_unknown: int = 0
    results_malformed: int = 0


class _Checked:
    """For a batch that holds something the plain codec must not see."""

    def __init__(self, codec: Codec, most: int) -> None:
        self._codec = codec
        self._most = most

    def decode(self, frame: Frame) -> Decoded:
        if not frame.credential:
            raise DecodeError("topic_not_expected", f"topic {frame.channel[:200]!r} is none of this adapter's", "topic")
        if len(frame.payload) > self._most + 0xFFFF + 3 or (
            len(frame.payload) > self._most and not frame.payload.startswith(b"\1")
        ):
            raise DecodeError("oversized", f"{len(frame.payload)} bytes, at most {self._most} are taken", "payload")
        return self._codec.decode(frame)


class IotAgentAdapter:
    """`Adapter`, `CommandTarget`, `CommandEnder` and `Discoverer`. `clock` is wall-clock UTC ms."""

    def __init__(
        self,
        config: IotAgentConfig,
        dialect: Dialect,
        *,
        connect: Connect = DirectConnection.connect,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        self.name = config.name
        self.protocol = dialect.protocol
        self.config = config
        self.dialect = dialect
        self.stats = IotAgentStats()
        self.known: Provisioned | None = None
        """While it runs."""
        self.ports: dict[str, int] = {}
        """Of the HTTP servers that run: `http`, `provisioning`."""
        self.clock = clock
        self._codec = DialectCodec(dialect, config.codec)
        self._checked = _Checked(self._codec, config.max_payload_bytes)
        self.link = BrokerLink(config.mqtt, self, connect=connect, clock=clock) if config.mqtt is not None else None
        self._slash = "/" if config.mqtt is None or config.mqtt.leading_slash else ""
        self._head = f"{self._slash}{dialect.level}/"
        most = config.http.max_waiting if config.http is not None else 1
        self._gathering = Gathering(self._checked, most)
        self._sink: Sink | None = None
        self._pending: dict[str, list[Pending]] = {}
        self._ends = Ends()
        self._newest = Newest()
        self._over_http: OrderedDict[str, None] = OrderedDict()
        self._serving = False
        mapping = config.codec.observed_at
        self._times: dict[str, int] | None = {} if mapping is None or not mapping.required else None
        """Where readings get the time of their reception: the last one of each device in the newest batches."""

    def validate(self) -> None:
        """Check what the model cannot: that files exist and that the servers' library is there. Raises ValueError."""
        if self.config.mqtt is not None:
            self.config.mqtt.check_files()
        for field in ("http", "provisioning"):
            listen = getattr(self.config, field)
            if listen is None:
                continue
            try:
                import starlette  # noqa: F401  # only where a server is configured
                import uvicorn  # noqa: F401
            except ImportError:
                raise ValueError(f"{self.name}.{field}: install flexrelay[server] for an HTTP server") from None
            for name in ("certificate", "key", "ca"):
                path = getattr(listen.tls, name, None)
                if path is not None and not path.is_file():
                    raise ValueError(f"{self.name}.{field}.tls.{name}: there is no file {path}")

    @property
    def endpoint(self) -> str:
        mqtt, http = self.config.mqtt, self.config.http
        places = [f"{mqtt.host}:{mqtt.port}"] if mqtt is not None else []
        places += [f"{http.host}:{self.ports.get('http', http.port)}{self.dialect.path}"] if http is not None else []
        return ", ".join(places)

    @property
    def connected(self) -> bool:
        return self._serving and (self.link is None or self.link.connected)

    @property
    def can_command(self) -> bool:
        return bool(self.config.commands)

    def channels_for(self, credential: str) -> Sequence[str]:
        """Topic and path of a device's measures. Raises ValueError for what is not `<api key>/<device>`."""
        _parts(credential)
        topics = [f"{self._head}{credential}/attrs"] if self.link is not None else []
        return [*topics, self.dialect.path] if self.config.http is not None else topics

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if channel.startswith((self._head, self.dialect.path)) else None

    async def discover(self) -> AsyncIterator[str]:
        """The provisioned devices, bound or not."""
        if self.known is not None:
            for credential in list(self.known.credentials()):
                yield credential

    async def run(self, sink: Sink) -> None:
        """Until cancelled. What the sink raises besides SinkUnavailable ends it."""
        self._sink = sink
        self.known = Provisioned(self.config.state, max_devices=self.config.max_devices)
        try:
            async with AsyncExitStack() as stack:
                await self._serve(stack)
                self._serving = True
                tasks = [asyncio.create_task(self._gathering.run(sink), name=f"{self.name} requests")]
                if self.link is not None:
                    tasks.append(asyncio.create_task(self.link.run(), name=f"{self.name} broker"))
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    self._serving = False
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._serving = False
            self.ports = {}
            self.known.close()
            self.known = None

    async def _serve(self, stack: AsyncExitStack) -> None:
        config, known = self.config, self.known
        if config.http is None and config.provisioning is None:
            return
        from flexrelay_adapters._http import serving  # needs the extra `server`
        from flexrelay_adapters.iotagent.listening import listening
        from flexrelay_adapters.iotagent.measures import MeasuresApi
        from flexrelay_adapters.iotagent.provisioning import ProvisioningApi

        assert known is not None
        if config.http is not None:
            server = serving(listening(config.http), f"{self.name}.http", app=MeasuresApi(self).application())
            self.ports["http"] = await stack.enter_async_context(server)
        if config.provisioning is not None:
            api = ProvisioningApi(known, config.provisioning.token.get_secret_value(), self.dialect.path)
            server = serving(listening(config.provisioning), f"{self.name}.provisioning", app=api.application())
            self.ports["provisioning"] = await stack.enter_async_context(server)

    # Over MQTT (`flexrelay_adapters.mqtt.link.Upon`).

    def session(self) -> Session:
        return KEPT

    def filters(self) -> Sequence[str]:
        assert self.config.mqtt is not None
        group = f"$share/{self.config.mqtt.shared_group}/" if self.config.mqtt.shared_group is not None else ""
        keys = self.config.apikeys if self.config.apikeys and self.config.provisioning is None else ("+",)
        heads = [f"{self._head}{key}/+" for key in keys]
        measures = [f"{group}{head}/{kind}" for head in heads for kind in ("attrs", "attrs/+")]
        return [*measures, *(f"{head}/cmdexe" for head in heads)] if self.config.commands else measures

    async def opened(self, connection: Connection) -> None:
        pass

    async def closing(self, connection: Connection) -> None:
        pass

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        """Measures to the sink, results to whom they concern."""
        assert self._sink is not None and self.known is not None
        head, most = self._head, self.config.max_payload_bytes
        names_of, skip = self.known.names, len(self._slash)
        frames: list[Frame] = []
        answers: list[tuple[str, bytes]] = []
        codec: Codec = self._codec
        last = None if self._times is None else counting(self._times, now_ms)
        for message in gathered:
            topic, payload = message.topic, message.payload
            levels = topic.split("/")[skip:]
            kind = levels[3] if len(levels) >= 4 and topic.startswith(head) and levels[1] and levels[2] else ""
            credential = f"{levels[1]}/{levels[2]}" if kind else ""
            if kind == "cmdexe" and len(levels) == 4:
                answers.append((credential, payload))
                continue
            if kind != "attrs" or len(levels) > 5 or len(levels[-1]) > MAX_ATTRIBUTE:
                credential, codec = "", self._checked
            elif len(payload) > most:
                codec = self._checked
            else:
                names = names_of(credential)
                if names or len(levels) == 5 or payload[:1] == b"\1":
                    payload = framed(payload, attribute=levels[4] if len(levels) == 5 else "", names=names)
            at = now_ms
            if last is not None:
                at = last.get(credential, now_ms - 1) + 1
                last[credential] = at - 1 + self.dialect.most_groups(payload)
            frames.append(Frame(self.protocol, credential, payload, at, topic))
        if last is not None:
            self._times = last
        if frames:
            await self._sink.put(frames, codec)
            self.stats.frames += len(frames)
        for credential, payload in answers:
            await self.answered(credential, payload)

    # Over HTTP (`MeasuresApi`).

    def accepts(self, apikey: str) -> bool:
        """Whether the key is configured or provisioned."""
        return apikey in self.config.apikeys or (self.known is not None and apikey in self.known.apikeys)

    async def measured(self, credential: str, payload: bytes, channel: str, *, attribute: str, time: str) -> str:
        """Return when it is on disk: "" or the reason of its dead letter. Raises SinkUnavailable."""
        assert self.known is not None
        now = self.clock()
        at = now
        if self._times is not None and not time:
            self._times = counting(self._times, now)
            at = self._times.get(credential, now - 1) + 1
            self._times[credential] = at - 1 + self.dialect.most_groups(payload)
        body = framed(payload, attribute=attribute, time=time, names=self.known.names(credential))
        receipt = await self._gathering.put(Frame(self.protocol, credential, body, at, channel))
        self.stats.frames += 1
        self._over_http[credential] = None
        self._over_http.move_to_end(credential)
        if len(self._over_http) > _REMEMBERED:
            self._over_http.popitem(last=False)
        return receipt.reason

    async def polled(self, credential: str) -> bytes:
        """What waits for a device that asks; each command is handed over once."""
        commands: dict[str, Pending] = {}
        for pending in sorted(self._pending.get(credential, ()), key=lambda each: each.end):
            if pending.polled and not pending.sent and pending.is_due(self.clock()):
                commands.setdefault(pending.name, pending)
        given: list[Pending] = []
        try:
            for pending in commands.values():
                given.append(pending)
                pending.sent = True
                await self._told(pending)
        except BaseException:  # none of them goes out
            for pending in given:
                pending.sent = False
            raise
        return self.dialect.together([pending.payload for pending in given])

    async def answered(self, credential: str, payload: bytes) -> None:
        """Raises SinkUnavailable when the answer could not be recorded."""
        try:
            results = self.dialect.results(payload[: self.config.max_payload_bytes])
        except ValueError as error:
            self.stats.results_malformed += 1
            log.warning("%s: result from %s: %s", self.name, credential, str(error)[:200])
            return
        for result in results:
            await self._tell(credential, result)

    async def _tell(self, credential: str, result: Result) -> None:
        pending = asked(self._pending.get(credential, ()), result)
        if pending is None:
            self.stats.results_unknown += 1
            log.info("%s: result of %s to %s, which does not wait", self.name, credential, result.command[:80])
            return
        self.stats.results += 1
        state, detail = pending.verdict(result.text)
        await pending.waiting.record(state, self.clock(), detail)
        if state is CommandState.FAILED and not pending.end:
            self._newest.over(pending.waiting.command)

    # Commands.

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Send it (MQTT) or keep it until the device asks (HTTP); tell its states until acked, failed or expired.

        Raises ValueError when the adapter commands nothing, the command is under way, or for a credential that is none.
        """
        if not self.config.commands:
            raise ValueError(f"{self.name} commands nothing; set `commands`")
        apikey, device = _parts(command.credential)
        there = self._pending.get(command.credential, [])
        if any(pending.waiting.command.command_id == command.command_id for pending in there):
            raise ValueError(f"command {command.command_id} is under way")
        waiting = Waiting(command, on_update)
        await waiting.tell(CommandState.QUEUED, self.clock())
        mapping = self.config.commands.get(command.name)
        if mapping is None:
            await waiting.tell(CommandState.FAILED, self.clock(), f"{command.name} is not configured in {self.name}")
            return
        payload = payload_of(command, mapping, device, self.dialect)
        failed, polled = re.compile(mapping.failed), self._is_polled(command.credential)
        single = mapping.value is not None
        pending = Pending(waiting, mapping.name or command.name, payload, failed, polled, single=single)
        self._pending.setdefault(command.credential, []).append(pending)
        try:
            async with asyncio.timeout(max(0, command.expires_at - self.clock()) / 1000):
                if single:
                    await begun(command, self.clock)
                if not polled and command.expires_at > self.clock():
                    if self.must_end(command):  # on disk before it goes out: it is ended whatever happens
                        await self._told(pending)
                    await self._send(pending, apikey, device)
                await waiting.answered.wait()
        except TimeoutError:
            pass
        finally:
            self._drop(pending)
        await waiting.tell(CommandState.EXPIRED, self.clock(), "not answered in time")

    def must_end(self, command: Command) -> bool:
        """See `flexrelay_sdk.CommandEnder`."""
        mapping = self.config.commands.get(command.name)
        return mapping is not None and mapping.value is not None and mapping.value.revert is not None

    async def end(self, command: Command, before: Command | None = None) -> None:
        """See `flexrelay_sdk.CommandEnder`; waits for the device's answer."""
        if not self.must_end(command):
            return
        self._newest.check_end(command)
        apikey, device = _parts(command.credential)
        mapping, polled = self.config.commands[command.name], self._is_polled(command.credential)
        pending = self._ends.pending(command, before, mapping, self.dialect, polled=polled)
        there = self._pending.setdefault(command.credential, [])
        there[:] = [each for each in there if each is pending or not (each.end and each.name == pending.name)]
        if pending not in there:
            there.append(pending)
        sending = None if polled else asyncio.create_task(self._send(pending, apikey, device))
        try:
            await pending.waiting.answered.wait()
        finally:
            if sending is not None:
                sending.cancel()  # not after a newer command
                await asyncio.gather(sending, return_exceptions=True)
            if pending.waiting.answered.is_set() or not polled:
                self._drop(pending)
        try:
            self._ends.over(command)
        finally:
            self._newest.over(command)

    async def _told(self, pending: Pending) -> None:
        """That it is sent is told before it is. No end goes out after a newer command."""
        command = pending.waiting.command
        if not pending.end:
            self._newest.begin(command)
            for former in self._ends.supersede(command.credential, pending.name):
                await former.waiting.tell(CommandState.EXPIRED, self.clock())
                self._drop(former)
        try:
            await pending.waiting.tell(CommandState.SENT, self.clock())
        except BaseException:
            if not pending.end:
                self._newest.over(command)
            raise

    def _drop(self, pending: Pending) -> None:
        """It waits no more."""
        there = self._pending.get(pending.waiting.command.credential, [])
        if pending in there:
            there.remove(pending)
        if not there:
            self._pending.pop(pending.waiting.command.credential, None)

    def _is_polled(self, credential: str) -> bool:
        """Whether a device fetches its commands: as provisioned, else as it came last, else over MQTT if that is."""
        if self.link is None or self.config.http is None:
            return self.link is None
        transport = self.known.transport(credential) if self.known is not None else ""
        return transport == "HTTP" if transport in ("HTTP", "MQTT") else credential in self._over_http

    async def _send(self, pending: Pending, apikey: str, device: str) -> None:
        assert self.link is not None and self.config.mqtt is not None
        topic = self.config.mqtt.command_topic.replace("{apikey}", apikey).replace("{device}", device)
        await self.link.wait_connected()  # until then what comes is an answer to another one, delivered again
        pending.sent = True  # an answer may be here before the broker's own
        if await self.link.publish(topic, pending.payload, pending.waiting.command.expires_at):
            await pending.waiting.tell(CommandState.SENT, self.clock())


def _parts(credential: str) -> tuple[str, str]:
    """(API key, device). Raises ValueError."""
    parts = credential.split("/")
    if len(parts) != 2 or not all(parts) or any(sign in credential for sign in "+#\0"):
        raise ValueError(f"credential {credential[:120]!r} is not <api key>/<device id>")
    return parts[0], parts[1]
