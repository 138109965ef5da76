"""The adapter: NetworkMessages of a broker → DataSetMessages, one frame each → sink → acknowledgement."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flexrelay_adapters.mqtt._client import DirectConnection, Inbound
from flexrelay_adapters.mqtt.checked import Checked
from flexrelay_adapters.mqtt.link import Connect, UponBroker
from flexrelay_adapters.opcua_pubsub.codec import PubSubCodec
from flexrelay_adapters.opcua_pubsub.config import PubSubConfig
from flexrelay_adapters.opcua_pubsub.frame import Envelope, facts_of, framed, undivided
from flexrelay_adapters.opcua_pubsub.message import (
    EVENT,
    METADATA,
    STATUS,
    DataSetMessage,
    NetworkMessage,
    is_publisher,
    network_message,
    publisher_of,
    writer_of,
)
from flexrelay_adapters.opcua_pubsub.metadata import metadata_of
from flexrelay_adapters.opcua_pubsub.topics import Place, Topics
from flexrelay_adapters.opcua_pubsub.writers import Writer, Writers
from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk import Codec, Decoded, DecodeError, Frame
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

PROTOCOL: Final = "opcua_pubsub"
_STATES: Final = ("Disabled", "Paused", "Operational", "Error", "PreOperational")
"""PubSubState (OPC 10000-14 §6.2.1), by number."""
OPERATIONAL: Final = _STATES[2]


@dataclass(slots=True)
class PubSubStats:
    """Counters since the adapter was made."""

    messages: int = 0
    """DataSetMessages."""
    frames: int = 0
    keep_alives: int = 0
    events: int = 0
    unused: int = 0
    """DataSetMessages with none of the mapped fields, or of writers that are not configured: they are not kept."""
    missing: int = 0
    """DataSetMessages that never came, as the sequence numbers tell."""
    metadata: int = 0
    statuses: int = 0
    malformed: int = 0
    """Metadata and statuses that cannot be read; of data see the dead letters."""
    other_versions: int = 0
    """DataSetMessages of another major version than the newest metadata."""
    untracked: int = 0
    """Messages of publishers and writers beyond `max_publishers` and `max_writers`."""


class PubSubAdapter(UponBroker):
    """`Adapter` and `Discoverer` over one broker. Credentials are `publisher/writer`, or `publisher` where the messages
    name no writer. `clock` is wall-clock UTC ms."""

    def __init__(
        self,
        config: PubSubConfig,
        *,
        connect: Connect = DirectConnection.connect,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        super().__init__(config, self, connect=connect, clock=clock)
        self.protocol = PROTOCOL
        self.config = config
        self.stats = PubSubStats()
        self.states: dict[str, str] = {}
        """publisher → what its newest status says."""
        self._topics = Topics(config)
        self._codec = PubSubCodec(
            config.datasets, by_source=config.time == "source", check_publisher=config.check_publisher
        )
        self._checked = Checked(self._codec, config.max_payload_bytes, undivided(b""))
        self._writers = Writers(config.max_publishers, config.max_writers)

    def channels_for(self, credential: str) -> Sequence[str]:
        """The topics of a publisher's data; + stands for its groups and writers. Raises ValueError for a publisher that
        is no single level."""
        return self._topics.data_of(credential.partition("/")[0])

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if self._topics.of_data(channel) is not None else None

    async def discover(self) -> AsyncIterator[str]:
        """Every writer that data or metadata came of."""
        for credential in list(self._writers):
            yield credential

    # What the link asks (`flexrelay_adapters.mqtt.link.Upon`).

    def filters(self) -> Sequence[str]:
        return self._topics.filters

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        """Metadata and statuses are remembered, data go to the sink."""
        assert self._sink is not None
        batch = _Batch(self._writers)
        for message in gathered:
            place = self._topics.of_data(message.topic)
            if place is not None:
                self._divide(place, message, now_ms, batch)
                continue
            publisher = self._topics.announces(message.topic)
            if publisher:
                self._hear(publisher, message.payload, batch)
            else:
                batch.unusual = True
                batch.frames.append(Frame(PROTOCOL, "", message.payload, now_ms, message.topic))
        if batch.frames:
            await self._sink.put(batch.frames, _Known(batch.known, self._checked if batch.unusual else self._codec))
            self.stats.frames += len(batch.frames)
        self._writers.put(batch.changed)

    def _divide(self, place: Place, message: Inbound, now_ms: int, batch: "_Batch") -> None:
        data = message.payload
        found: NetworkMessage | None = None
        if len(data) <= self.config.max_payload_bytes:
            try:
                found = network_message(data)
                parts = [(writer_of(each.header) or place.writer, each) for each in found.messages]
            except DecodeError:
                found = None  # the codec says why
        else:
            batch.unusual = True
        if found is None or not self._is_of(place.publisher, found):
            batch.frames.append(Frame(PROTOCOL, place.publisher, undivided(data), now_ms, message.topic))
        elif found.messages:
            for writer, each in parts:
                credential = f"{place.publisher}/{writer}" if writer else place.publisher
                self._take(credential, each, now_ms, message.topic, batch)
        else:
            self._hear(place.publisher, data, batch)

    def _is_of(self, publisher: str, found: NetworkMessage) -> bool:
        return not self.config.check_publisher or not found.publisher or is_publisher(found.publisher, publisher)

    def _take(self, credential: str, message: DataSetMessage, now_ms: int, topic: str, batch: "_Batch") -> None:
        stats, header = self.stats, message.header
        stats.messages += 1
        writer = batch.writer(credential)
        if writer is None:
            stats.untracked += 1
            writer = Writer()
        keeps_alive = message.keeps_alive
        gap = writer.gap_before(header.get("SequenceNumber"), keeps_alive=keeps_alive)
        stats.missing += gap
        writer.missing += gap
        if keeps_alive:
            stats.keep_alives += 1
            return
        if header.get("MessageType") == EVENT:
            stats.events += 1
            return
        plan = self._codec.plan(message, credential.partition("/")[2])
        if plan is None or plan.targets.keys().isdisjoint(header["Payload"]):
            stats.unused += 1
            return
        metadata = writer.metadata
        stats.other_versions += metadata is not None and plan.is_other(header, metadata.major)
        facts = writer.facts
        envelope = Envelope(True, 0, writer.missing, facts_of(facts), message.raw)
        reading: Measurement | None = None
        shift_ms = 0
        try:
            reading = self._codec.reading(message, plan, envelope, now_ms)
        except DecodeError:
            pass  # a dead letter: it takes no instant
        else:
            shift_ms = writer.shift_for(reading.observed_at, reading.registers)
        whole = framed(message.raw, facts, missing=writer.missing, shift_ms=shift_ms)
        frame = Frame(PROTOCOL, credential, whole, now_ms, topic)
        batch.frames.append(frame)
        if reading is not None:
            writer.missing = 0
            if not shift_ms:
                batch.known[frame] = Decoded((reading,))

    def _hear(self, publisher: str, data: bytes, batch: "_Batch") -> None:
        """Metadata or a status; of other announcements nothing is used."""
        try:
            if len(data) > self.config.max_payload_bytes:
                raise DecodeError("oversized", f"{len(data)} bytes")
            found = network_message(data)
            if not self._is_of(publisher, found):
                raise DecodeError("wrong_sender", f"it names the publisher {publisher_of(found.document)[:80]!r}")
            if found.kind == METADATA:
                self._learn(publisher, found, batch)
            elif found.kind == STATUS:
                self._status(publisher, found)
        except DecodeError as error:
            self.stats.malformed += 1
            log.warning("%s: an announcement of %s is passed over: %s", self.name, publisher, error)

    def _learn(self, publisher: str, found: NetworkMessage, batch: "_Batch") -> None:
        named = writer_of(found.document)
        credential = f"{publisher}/{named}" if named else publisher
        plan = self._codec.plan(DataSetMessage(b"", found.document), named)
        metadata = metadata_of(found.document, plan.targets if plan is not None else ())
        self.stats.metadata += 1
        writer = batch.writer(credential)
        if writer is None:
            self.stats.untracked += 1
            return
        if writer.metadata is not None and writer.metadata == metadata:
            return
        writer.metadata = metadata
        if plan is not None:
            problems = [f"it has no field {name!r}" for name in metadata.missing] + plan.problems(metadata.facts)
            for problem in problems:
                log.warning("%s: metadata of %s, version %d: %s", self.name, credential, metadata.major, problem)

    def _status(self, publisher: str, found: NetworkMessage) -> None:
        told = found.document.get("Status")
        state = _STATES[told] if type(told) is int and 0 <= told < len(_STATES) else str(told).partition("_")[0]
        if state not in _STATES:
            raise DecodeError("not_status", "what stands there is no PubSubState", "Status")
        self.stats.statuses += 1
        if self.states.get(publisher) != state and (publisher in self.states or len(self.states) < _PUBLISHERS):
            level = logging.INFO if state == OPERATIONAL else logging.WARNING
            log.log(level, "%s: %s is %s", self.name, publisher, state)
            self.states[publisher] = state


_PUBLISHERS: Final = 10_000
"""Whose states are remembered."""


class _Known:
    """The codec of a batch of which most is decoded already; the rest is given to `codec`."""

    def __init__(self, known: Mapping[Frame, Decoded], codec: Codec) -> None:
        self._known = known
        self._codec = codec

    def decode(self, frame: Frame) -> Decoded:
        return self._known.get(frame) or self._codec.decode(frame)


class _Batch:
    """What is gathered; changes of writers count when it is stored."""

    def __init__(self, writers: Writers) -> None:
        self.frames: list[Frame] = []
        self.known: dict[Frame, Decoded] = {}
        self.changed: dict[str, Writer] = {}
        self.unusual = False
        self._writers = writers

    def writer(self, credential: str) -> Writer | None:
        """To be changed. None when there is room for no more."""
        found = self.changed.get(credential)
        if found is None:
            known = self._writers.get(credential)
            if known is None:
                return None
            found = self.changed[credential] = known.copy()
        return found
