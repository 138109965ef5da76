"""The host application: births, data and deaths → sink; STATE, rebirth requests and commands → edge nodes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from flexrelay_adapters._commands import Newest, begun
from flexrelay_adapters.mqtt._client import Connection, ConnectionLost, DirectConnection, Inbound, Session
from flexrelay_adapters.mqtt.checked import Checked
from flexrelay_adapters.mqtt.commands import OnUpdate, Waiting
from flexrelay_adapters.mqtt.link import Connect, UponBroker
from flexrelay_adapters.sparkplug.codec import SparkplugCodec
from flexrelay_adapters.sparkplug.commands import Pending, command_payload, rebirth_payload, reported
from flexrelay_adapters.sparkplug.config import SparkplugConfig
from flexrelay_adapters.sparkplug.frame import BIRTH, DATA, head
from flexrelay_adapters.sparkplug.nameplate import facts_of
from flexrelay_adapters.sparkplug.nodes import EdgeNode, Nodes, Order, Thing
from flexrelay_adapters.sparkplug.payload import read_payload
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_adapters.sparkplug.topics import Address, address_of, filters, state_topic, topic_for
from flexrelay_schemas.canonical import canonical
from flexrelay_sdk import Codec, Command, CommandState, CommandUpdate, DecodeError, DeviceFacts, Frame
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.facts import NO_FACTS

log = logging.getLogger(__name__)

PROTOCOL = "sparkplug"
_BIRTH, _UNTOLD = head(BIRTH), head(DATA)
_END_MS = 7 * 86_400_000
"""So long an end is meant for a device."""


@dataclass(slots=True)
class SparkplugStats:
    """Counters since the adapter was made."""

    frames: int = 0
    births: int = 0
    deaths: int = 0
    gaps: int = 0
    """Messages that were missing before another one, as the sequence numbers tell."""
    rebirths: int = 0
    """Rebirths asked for."""
    unused: int = 0
    """Messages with none of the mapped metrics: they are not kept."""
    turned_away: int = 0
    """Messages of nodes and devices beyond `max_nodes` and `max_devices`."""


class SparkplugAdapter(UponBroker):
    """`Adapter`, `CommandTarget`, `CommandEnder`, `Discoverer` and `FactTeller` over one broker. Credentials are
    group/node and group/node/device."""

    def __init__(
        self,
        config: SparkplugConfig,
        *,
        connect: Connect = DirectConnection.connect,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        super().__init__(config, self, connect=connect, clock=clock)
        self.protocol = PROTOCOL
        self.config = config
        self.stats = SparkplugStats()
        self._clock = clock
        self._codec = SparkplugCodec(config.registers)
        self._checked = Checked(self._codec, config.max_payload_bytes, _UNTOLD)
        self._used = frozenset(mapping.metric for mapping in config.registers.values())
        self._nodes = Nodes(self._used, config.told, max_nodes=config.max_nodes, max_devices=config.max_devices)
        self._state = state_topic(config.host_id)
        self._since = 0
        self._pending: dict[str, list[Pending]] = {}
        self._born = asyncio.Condition()
        self._newest = Newest()
        self._facts: dict[str, DeviceFacts] = {}

    @property
    def can_command(self) -> bool:
        return bool(self.config.commands)

    def channels_for(self, credential: str) -> Sequence[str]:
        """The topics of births and data. Raises ValueError for a credential that is not group/node[/device]."""
        return [topic_for(credential, kind) for kind in ("NBIRTH", "NDATA")]

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if address_of(channel) is not None else None

    async def discover(self) -> AsyncIterator[str]:
        """Everything whose birth is known and whose death is not."""
        for credential in list(self._nodes.born()):
            yield credential

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`: what births told of makers, models and firmware."""
        return list(self._facts.items())

    # What the link asks (`flexrelay_adapters.mqtt.link.Upon`).

    def session(self) -> Session:
        """Clean, with the will that says offline (Sparkplug 3.0 §5.3)."""
        self._since = self._clock()
        self._nodes.forget_connections()
        return Session((self._state, self._standing(online=False)), clean=True)

    def filters(self) -> Sequence[str]:
        return filters(self.config.groups, self.config.host_id)

    async def opened(self, connection: Connection) -> None:
        await connection.publish(self._state, self._standing(online=True), None, retain=True)

    async def closing(self, connection: Connection) -> None:
        """Say offline before going: nodes with this primary host keep from here on what they measure."""
        await connection.publish(self._state, self._standing(online=False), None, retain=True)

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        """Births and deaths are counted in, data go to the sink, gaps are asked about, answers are told."""
        assert self._sink is not None
        most = self.config.max_payload_bytes
        frames: list[Frame] = []
        ask: dict[str, EdgeNode] = {}
        heard: list[tuple[str, Thing, Payload]] = []
        codec: Codec = self._codec
        for message in gathered:
            topic, data = message.topic, message.payload
            address = address_of(topic)
            if address is None:
                if topic == self._state:
                    await self._own_state(data)
                else:
                    codec = self._checked
                    frames.append(Frame(PROTOCOL, "", data, now_ms, topic))
                continue
            credential = address.credential
            if len(data) > most:
                codec = self._checked
                frames.append(Frame(PROTOCOL, credential, _UNTOLD + data, now_ms, topic))
                continue
            try:
                payload = read_payload(data)
            except DecodeError:
                frames.append(Frame(PROTOCOL, credential, _UNTOLD + data, now_ms, topic))
                continue
            before = self._count_in(address, payload, ask)
            if before is not None:
                frames.append(Frame(PROTOCOL, credential, before + data, now_ms, topic))
            if self._pending and credential in self._pending:
                thing = self._nodes.thing(credential)
                if thing is not None:
                    heard.append((credential, thing, payload))
        if frames:
            await self._sink.put(frames, codec)
            self.stats.frames += len(frames)
        for credential, thing, payload in heard:
            await self._hear(credential, thing, payload)
        for name, node in ask.items():
            await self._ask(name, node, now_ms)
        if self._pending:
            async with self._born:
                self._born.notify_all()

    def _count_in(self, address: Address, payload: Payload, ask: dict[str, EdgeNode]) -> bytes | None:
        """What stands before the payload in its frame; None when there is nothing in it to keep."""
        nodes, stats = self._nodes, self.stats
        node = nodes.node(address.of_node)
        if node is None:
            stats.turned_away += 1
            return None
        kind = address.kind
        if kind == "NBIRTH":
            stats.births += 1
            nodes.nbirth(node, payload)
            self._learn(address.credential, payload)
            return self._used_birth(payload)
        if kind == "NDEATH":
            stats.deaths += nodes.ndeath(node, payload)
            return None
        thing = nodes.thing(address.credential)
        if kind == "DBIRTH" and node.seq is not None:
            stats.births += 1
            if not nodes.dbirth(node, address.device, payload):
                stats.turned_away += 1
                return None
            thing = nodes.thing(address.credential)
            self._learn(address.credential, payload)
        stats.gaps += nodes.order(node, thing, payload) is Order.GAP
        if node.wanting and kind != "DDEATH":
            ask[address.of_node] = node
        if kind == "DDEATH":
            stats.deaths += 1
            nodes.ddeath(node, address.device)
            return None
        if kind == "DBIRTH":
            return self._used_birth(payload)
        used, aliases = self._used, frozenset() if thing is None else thing.aliases
        unknown = thing is None or not thing.births
        for metric in payload.metrics:
            name = metric.name
            if (name in used if name else unknown or metric.alias in aliases) and not metric.is_null:
                return _UNTOLD if thing is None else thing.head
        stats.unused += 1
        return None

    def _learn(self, credential: str, birth: Payload) -> None:
        """Of so many as there is room for; the oldest go."""
        facts = facts_of(birth)
        if facts != NO_FACTS:
            self._facts[credential] = facts
            if len(self._facts) > self.config.max_nodes + self.config.max_devices:
                del self._facts[next(iter(self._facts))]

    def _used_birth(self, payload: Payload) -> bytes | None:
        used = self._used
        for metric in payload.metrics:
            if metric.name in used and not metric.is_null and metric.WhichOneof("value") is not None:
                return _BIRTH
        return None

    async def _ask(self, name: str, node: EdgeNode, now_ms: int) -> None:
        if node.asked_at and now_ms - node.asked_at < self.config.rebirth_interval_s * 1000:
            return
        node.asked_at = now_ms
        self.stats.rebirths += 1
        try:
            await self.link.publish(topic_for(name, "NCMD"), rebirth_payload(now_ms), qos=0)
        except ConnectionLost as error:
            log.info("%s: %s is asked for its birth later: %s", self.name, name, error)
            node.asked_at = 0

    def _standing(self, *, online: bool) -> bytes:
        return canonical({"online": online, "timestamp": self._since})

    async def _own_state(self, data: bytes) -> None:
        """Another's word, or an old will's, that this host is offline while it is not (Sparkplug 3.0 §5.4)."""
        try:
            offline = json.loads(data).get("online") is False
        except (ValueError, AttributeError, RecursionError):
            offline = True
        if offline and self.link.connected:
            log.warning("%s: something says that host %s is offline; it is told again", self.name, self.config.host_id)
            try:
                await self.link.publish(self._state, self._standing(online=True), qos=0, retain=True)
            except ConnectionLost:
                pass  # the next connection tells it

    async def _hear(self, credential: str, thing: Thing, payload: Payload) -> None:
        told = reported(payload, thing.told)
        for pending in list(self._pending.get(credential, ())):
            verdict = pending.verdict(told) if pending.sent else None
            if verdict is not None:
                await pending.waiting.record(verdict[0], self._clock(), verdict[1])
                if verdict[0] is CommandState.FAILED and not pending.end:
                    self._newest.over(pending.waiting.command)

    # Commands.

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Write the command's metrics once the device lives, and tell its states until acked, failed or expired.

        Raises ValueError when the adapter commands nothing, the command is under way, or for a credential that is none.
        """
        if not self.config.commands:
            raise ValueError(f"{self.name} commands nothing; set `commands`")
        topic = topic_for(command.credential, "NCMD")
        there = self._pending.get(command.credential, [])
        if any(pending.waiting.command.command_id == command.command_id for pending in there):
            raise ValueError(f"command {command.command_id} is under way")
        await self._execute(command, on_update, topic)

    async def _execute(self, command: Command, on_update: OnUpdate, topic: str, *, end: bool = False) -> None:
        waiting = Waiting(command, on_update)
        await waiting.tell(CommandState.QUEUED, self._clock())
        mapping = self.config.commands.get(command.name)
        if mapping is None:
            await waiting.tell(CommandState.FAILED, self._clock(), f"{command.name} is not configured in {self.name}")
            return
        pending = Pending(waiting, mapping, end=end)
        self._pending.setdefault(command.credential, []).append(pending)
        try:
            async with asyncio.timeout(max(0, command.expires_at - self._clock()) / 1000):
                if not pending.tells_window:
                    await begun(command, self._clock)
                while command.expires_at > self._clock() and not waiting.answered.is_set():
                    await self._send(pending, topic)
                    await self._answered_or_reborn(pending)
        except TimeoutError:
            pass
        finally:
            self._pending[command.credential].remove(pending)
            if not self._pending[command.credential]:
                del self._pending[command.credential]
        await waiting.tell(CommandState.EXPIRED, self._clock(), "not answered in time")

    def must_end(self, command: Command) -> bool:
        """See `flexrelay_sdk.CommandEnder`."""
        mapping = self.config.commands.get(command.name)
        return mapping is not None and any(written.revert is not None for written in mapping.write.values())

    async def end(self, command: Command, before: Command | None = None) -> None:
        """See `flexrelay_sdk.CommandEnder`; waits for the device. It is a command of its own: the device may know the
        id of the one that is over."""
        if not self.must_end(command):
            return
        self._newest.check_end(command)
        write = self.config.commands[command.name].write
        reverts = {name: written.revert for name, written in write.items() if written.revert is not None}
        told: list[CommandUpdate] = []

        async def note(update: CommandUpdate) -> None:
            told.append(update)

        again = replace(
            command,
            command_id=f"{command.command_id}-end",
            parameters=reverts if before is None else before.parameters,
            expires_at=command.expires_at + _END_MS if before is None else before.expires_at,
        )
        await self._execute(again, note, topic_for(command.credential, "NCMD"), end=True)
        if told[-1].state is not CommandState.EXPIRED:
            self._newest.over(command)
        if told[-1].state is CommandState.FAILED:
            raise ValueError(f"the device refuses its end: {told[-1].detail}")
        if told[-1].state is CommandState.EXPIRED:
            raise ConnectionError(f"{command.credential} did not answer to its end")

    async def _answered_or_reborn(self, pending: Pending) -> None:
        """A device that is born again may have missed the command: QoS 0 is what the protocol demands."""
        credential = pending.waiting.command.credential

        def done() -> bool:
            thing = self._nodes.thing(credential)
            return pending.waiting.answered.is_set() or (thing is not None and thing.births != pending.births)

        async with self._born:
            await self._born.wait_for(done)

    async def _send(self, pending: Pending, topic: str) -> None:
        command, waiting = pending.waiting.command, pending.waiting
        while (left_ms := command.expires_at - self._clock()) > 0 and not waiting.answered.is_set():
            thing = self._nodes.thing(command.credential)
            if thing is None or not thing.born or not self.link.connected:
                async with self._born:  # births are told here; the connection is looked at now and then
                    try:
                        async with asyncio.timeout(min(1.0, left_ms / 1000)):
                            await self._born.wait()
                    except TimeoutError:
                        continue
                continue
            if pending.sent and not pending.end and not pending.tells_window and not self._newest.holds(command):
                await waiting.tell(CommandState.FAILED, self._clock(), "a newer command holds the device")
                return
            try:
                payload = command_payload(command, pending.mapping, thing, self._clock())
            except ValueError as error:
                await waiting.tell(CommandState.FAILED, self._clock(), str(error)[:500])
                return
            if not pending.end and not pending.sent:
                await self._supersede(command)
            if self.must_end(command):  # on disk before it goes out: it is ended whatever happens
                await self._told(pending)
                if waiting.answered.is_set():
                    return
            pending.sent, pending.births = True, thing.births
            try:
                await self.link.publish(topic, payload, qos=0)
            except ConnectionLost as error:
                log.info("%s: command %s goes out again: %s", self.name, command.command_id, error)
                await asyncio.sleep(self.config.backoff_min_s)
                continue
            await waiting.tell(CommandState.SENT, self._clock())
            return

    async def _supersede(self, command: Command) -> None:
        """It goes out: what would end an older one of its name does not any more."""
        self._newest.begin(command)
        for other in list(self._pending.get(command.credential, ())):
            if other.end and other.waiting.command.name == command.name:
                await other.waiting.tell(CommandState.EXPIRED, self._clock(), "a newer command goes out")
        async with self._born:
            self._born.notify_all()

    async def _told(self, pending: Pending) -> None:
        try:
            await pending.waiting.tell(CommandState.SENT, self._clock())
        except BaseException:
            if not pending.end:
                self._newest.over(pending.waiting.command)
            raise
