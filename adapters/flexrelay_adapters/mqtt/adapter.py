"""The adapter: broker → sink → acknowledgement, and commands → devices → results.

One batch is what is waiting when the previous one is on disk, so the sink commits many readings at once under load and
one at a time when it is quiet. While a batch commits, the next one gathers; what gathers is bounded by
`max_pending` and `max_pending_bytes`, beyond which the socket is not read and the broker keeps the rest.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flexrelay_adapters.mqtt._client import Connection, ConnectionLost, DirectConnection, Inbound
from flexrelay_adapters.mqtt.checked import Checked
from flexrelay_adapters.mqtt.commands import Dialect, OnUpdate, OwnDialect, Waiting
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Codec, Command, CommandState, Frame, Sink, SinkUnavailable
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

PROTOCOL = "mqtt"
Connect = Callable[[MqttConfig], Awaitable[Connection]]


@dataclass(slots=True)
class MqttStats:
    """Counters since the adapter was made."""

    connections: int = 0
    frames: int = 0
    batches: int = 0
    acknowledged: int = 0
    sink_refusals: int = 0
    results: int = 0
    results_unknown: int = 0
    """Answers to no command that waits here: too late, sent twice, or not from the commanded device."""
    results_malformed: int = 0


class MqttAdapter:
    """`Adapter` and `CommandTarget` over one MQTT broker. `codec` makes measurements of payloads.

    `protocol` is what its frames carry and `dialect` how commands and answers are written, for protocols that come by
    way of a broker. `clock` is wall-clock UTC ms; `connect` opens the connection (mqttium unless told otherwise).
    """

    def __init__(
        self,
        config: MqttConfig,
        codec: Codec,
        *,
        protocol: str = PROTOCOL,
        dialect: Dialect | None = None,
        connect: Connect = DirectConnection.connect,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        self.name = config.name
        self.protocol = protocol
        self.config = config
        self.stats = MqttStats()
        self._codec = codec
        self._checked = Checked(codec, config.max_payload_bytes)
        self._connect = connect
        self._clock = clock
        self._readings = tuple(TopicPattern(pattern) for pattern in config.readings)
        self._commands = TopicPattern(config.commands) if config.commands is not None else None
        self._dialect = dialect or OwnDialect()
        self._results = self._dialect.topics(config.results) if config.results is not None else ()
        self._waiting: dict[str, Waiting] = {}
        self._connection: Connection | None = None
        self._online = asyncio.Event()
        self._failures = 0
        mapping = config.codec
        self._times: dict[str, int] | None = {} if mapping != "flexrelay" and mapping.may_use_receive_time else None
        """Where readings get the time of their reception: the last one of each credential in the newest batches."""

    def validate(self) -> None:
        """Check what the model cannot: that the files exist. Raises ValueError naming the field."""
        self.config.check_files()

    @property
    def endpoint(self) -> str:
        return f"{self.config.host}:{self.config.port}"

    @property
    def can_command(self) -> bool:
        return self._commands is not None

    def channels_for(self, credential: str) -> Sequence[str]:
        """The topics of readings of one device. Raises ValueError for a credential that is no single level."""
        return [topic.topic_for(credential) for topic in self._readings]

    def codec_for(self, channel: str) -> Codec | None:
        """The codec, when the channel is one of its topics of readings."""
        return self._codec if any(topic.credential_of(channel) is not None for topic in self._readings) else None

    @property
    def connected(self) -> bool:
        """Whether the adapter is connected and subscribed."""
        return self._online.is_set()

    async def wait_connected(self) -> None:
        """Return once the adapter is connected and subscribed."""
        await self._online.wait()

    async def run(self, sink: Sink) -> None:
        """Connect, feed the sink and reconnect with back-off, until cancelled. What else the sink raises ends it."""
        while True:
            try:
                await self._serve(sink)
            except ConnectionLost as error:
                log.warning("%s: %s", self.name, error)
            except SinkUnavailable as error:
                self.stats.sink_refusals += 1
                log.warning("%s: the gateway cannot store (%s); the broker will deliver again", self.name, error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Python 3.11's wait_for lets a cancellation get lost in an exception that comes at the same moment
                raise asyncio.CancelledError
            most = min(self.config.backoff_max_s, self.config.backoff_min_s * 2 ** min(self._failures, 20))
            self._failures += 1
            await asyncio.sleep(most * (0.5 + random.random() / 2))  # noqa: S311  # jitter, not a secret

    async def _serve(self, sink: Sink) -> None:
        connection = await self._connect(self.config)
        # A resumed session delivers at once, and what it delivers may fill every bound before the broker's answer to
        # the subscription: so both go on side by side.
        pumping = asyncio.create_task(self._pump(connection, sink), name=f"{self.name} readings")
        subscribing = asyncio.create_task(connection.subscribe(self._filters()), name=f"{self.name} subscription")
        try:
            done, _ = await asyncio.wait({pumping, subscribing}, return_when=asyncio.FIRST_COMPLETED)
            if subscribing in done:
                subscribing.result()
                self._connection = connection
                self.stats.connections += 1
                self._online.set()
            await pumping
        finally:
            self._online.clear()
            self._connection = None
            for task in (pumping, subscribing):
                task.cancel()
            await asyncio.gather(pumping, subscribing, return_exceptions=True)
            await connection.close()

    async def _pump(self, connection: Connection, sink: Sink) -> None:
        while True:
            gathered = await connection.gather(self.config.batch)
            await self._take(gathered, sink)
            await connection.acknowledge(gathered)
            self.stats.acknowledged += len(gathered)
            self._failures = 0

    def _filters(self) -> list[str]:
        group = f"$share/{self.config.shared_group}/" if self.config.shared_group is not None else ""
        filters = [group + pattern.filter for pattern in self._readings]
        # not shared: the answer belongs to the gateway that asked
        return filters + [pattern.filter for pattern in self._results]

    async def _take(self, gathered: Sequence[Inbound], sink: Sink) -> None:
        """Return when everything gathered is on disk or told to whom it concerns; only then may it be acknowledged."""
        now = self._clock()
        most, protocol = self.config.max_payload_bytes, self.protocol
        first, others = self._readings[0].credential_of, self._readings[1:]
        frames: list[Frame] = []
        answers: list[tuple[str, Inbound]] = []
        codec: Codec = self._codec
        for message in gathered:
            topic, payload = message.topic, message.payload
            credential = first(topic)
            if credential is None:
                answering = next((found for each in self._results if (found := each.credential_of(topic))), None)
                if answering is not None:
                    answers.append((answering, message))
                    continue
                credential = next((found for other in others if (found := other.credential_of(topic))), "")
                if not credential:
                    codec = self._checked
            if len(payload) > most:
                codec = self._checked
            frames.append(Frame(protocol, credential, payload, now, topic))
        if self._times is not None:
            frames = self._apart(frames, now)
        if frames:
            await sink.put(frames, codec)
            self.stats.frames += len(frames)
            self.stats.batches += 1
        for credential, message in answers:
            await self._answer(credential, message)

    def _apart(self, frames: Sequence[Frame], now: int) -> list[Frame]:
        """The frames with another receive time for each of a sender's, since that is its readings' instant: two of
        one batch would be two values of one instant, which is what a cheat looks like."""
        last = {credential: at for credential, at in (self._times or {}).items() if at >= now}
        apart = []
        for frame in frames:
            at = last.get(frame.credential, now - 1) + 1
            last[frame.credential] = at
            apart.append(frame._replace(received_at=at))
        self._times = last
        return apart

    async def _answer(self, credential: str, message: Inbound) -> None:
        try:
            result = self._dialect.result(message.topic, message.payload[: self.config.max_payload_bytes + 1])
        except ValueError as error:
            self.stats.results_malformed += 1
            log.warning("%s: from %s: %s", self.name, credential, error)
            return
        if result is None:
            return
        waiting = self._waiting.get(result.command_id)
        if waiting is None or waiting.command.credential != credential:
            self.stats.results_unknown += 1
            log.info("%s: answer of %s to command %s, which does not wait", self.name, credential, result.command_id)
            return
        self.stats.results += 1
        try:
            await waiting.hear(CommandState(result.state), self._clock(), result.detail, result.values)
        except Exception as error:
            log.exception("%s: the answer to command %s could not be recorded", self.name, result.command_id)
            raise SinkUnavailable(f"the answer to command {result.command_id} could not be recorded") from error

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Publish the command and tell its states until it is acked, failed or expired.

        While there is no connection the command waits, at most until it expires. Raises ValueError when the adapter
        has no command topic or the command is under way already.
        """
        if self._commands is None:
            raise ValueError(f"{self.name} has no command topic; set `commands` and `results`")
        if command.command_id in self._waiting:
            raise ValueError(f"command {command.command_id} is under way")
        topic = self._commands.topic_for(command.credential)
        waiting = Waiting(command, on_update)
        self._waiting[command.command_id] = waiting
        try:
            await waiting.tell(CommandState.QUEUED, self._clock())
            sending = asyncio.create_task(self._send(waiting, topic), name=f"command {command.command_id}")
            try:
                left_s = max(0, command.expires_at - self._clock()) / 1000
                await asyncio.wait({sending}, timeout=left_s)
                if sending.done():
                    sending.result()
                    left_s = max(0, command.expires_at - self._clock()) / 1000
                    async with asyncio.timeout(left_s):
                        await waiting.answered.wait()
            except TimeoutError:
                pass
            finally:
                sending.cancel()
            await waiting.tell(CommandState.EXPIRED, self._clock(), "not answered in time")
        finally:
            del self._waiting[command.command_id]

    async def _send(self, waiting: Waiting, topic: str) -> None:
        try:
            payload = self._dialect.payload(waiting.command)
        except ValueError as error:
            await waiting.tell(CommandState.FAILED, self._clock(), str(error)[:500])
            return
        while (left_ms := waiting.command.expires_at - self._clock()) > 0:
            await self._online.wait()
            connection = self._connection
            if connection is None:
                continue
            try:
                await connection.publish(topic, payload, max(1, left_ms // 1000))
            except ConnectionLost as error:
                log.info("%s: command %s goes out again: %s", self.name, waiting.command.command_id, error)
                await asyncio.sleep(self.config.backoff_min_s)
                continue
            await waiting.tell(CommandState.SENT, self._clock())
            return
