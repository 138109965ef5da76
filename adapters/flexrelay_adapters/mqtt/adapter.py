"""The adapter: broker → sink → acknowledgement, and commands → devices → results.

One batch is what is waiting when the previous one is on disk, so the sink commits many readings at once under load and
one at a time when it is quiet. While a batch commits, the next one gathers; what gathers is bounded by
`max_pending` and `max_pending_bytes`, beyond which the socket is not read and the broker keeps the rest.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flexrelay_adapters._commands import begun
from flexrelay_adapters._instants import counting
from flexrelay_adapters.mqtt._client import DirectConnection, Inbound
from flexrelay_adapters.mqtt.checked import Checked
from flexrelay_adapters.mqtt.commands import Dialect, OnUpdate, OwnDialect, Waiting
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_adapters.mqtt.link import Connect, UponBroker
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Codec, Command, CommandState, Frame
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

PROTOCOL = "mqtt"


@dataclass(slots=True)
class MqttStats:
    """Counters since the adapter was made."""

    frames: int = 0
    batches: int = 0
    results: int = 0
    results_unknown: int = 0
    """Answers to no command that waits here: too late, sent twice, or not from the commanded device."""
    results_malformed: int = 0


class MqttAdapter(UponBroker):
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
        super().__init__(config, self, connect=connect, clock=clock)
        self.protocol = protocol
        self.config = config
        self.stats = MqttStats()
        self._codec = codec
        self._checked = Checked(codec, config.max_payload_bytes)
        self._clock = clock
        self._readings = tuple(TopicPattern(pattern) for pattern in config.readings)
        self._commands = TopicPattern(config.commands) if config.commands is not None else None
        self._dialect = dialect or OwnDialect()
        self._results = self._dialect.topics(config.results) if config.results is not None else ()
        self._waiting: dict[str, Waiting] = {}
        mapping = config.codec
        self._times: dict[str, int] | None = {} if mapping != "flexrelay" and mapping.may_use_receive_time else None
        """Where readings get the time of their reception: the last one of each credential in the newest batches."""

    @property
    def can_command(self) -> bool:
        return self._commands is not None

    def channels_for(self, credential: str) -> Sequence[str]:
        """The topics of readings of one device. Raises ValueError for a credential that is no single level."""
        return [topic.topic_for(credential) for topic in self._readings]

    def codec_for(self, channel: str) -> Codec | None:
        """The codec, when the channel is one of its topics of readings."""
        return self._codec if any(topic.credential_of(channel) is not None for topic in self._readings) else None

    # What the link asks (`flexrelay_adapters.mqtt.link.Upon`).

    def filters(self) -> Sequence[str]:
        group = f"$share/{self.config.shared_group}/" if self.config.shared_group is not None else ""
        filters = [group + pattern.filter for pattern in self._readings]
        # not shared: the answer belongs to the gateway that asked
        return filters + [pattern.filter for pattern in self._results]

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        """Readings go to the sink, answers to the commands that wait for them."""
        assert self._sink is not None
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
            frames.append(Frame(protocol, credential, payload, now_ms, topic))
        if self._times is not None:
            frames = self._apart(frames, now_ms)
        if frames:
            await self._sink.put(frames, codec)
            self.stats.frames += len(frames)
            self.stats.batches += 1
        for credential, message in answers:
            await self._answer(credential, message)

    def _apart(self, frames: Sequence[Frame], now: int) -> list[Frame]:
        """The frames with another receive time for each of a sender's, since that is its readings' instant: two of
        one batch would be two values of one instant, which is what a cheat looks like."""
        last = counting(self._times or {}, now)
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
        await waiting.record(CommandState(result.state), self._clock(), result.detail, result.values)

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
        if not self._dialect.tells_beginning(waiting.command):
            await begun(waiting.command, self._clock)
        if await self.link.publish(topic, payload, waiting.command.expires_at):
            await waiting.tell(CommandState.SENT, self._clock())
