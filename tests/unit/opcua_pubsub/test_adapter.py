"""What the adapter makes of messages in order: sequence numbers, key and delta frames, metadata, bounds, hostility."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.chance import told_seed
from support.mqtt_hand import Hand, Message
from support.opcua_publisher import (
    AT,
    data_set_message,
    encoded_by_node_opcua,
    metadata_message,
    network_message,
    value_at,
)

from flexrelay_adapters.opcua_pubsub import PubSubAdapter, PubSubCodec, PubSubConfig
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import Codec, Decoded, DecodeError, Frame, Receipt
from flexrelay_sdk.testkit import RecordingSink, running, until
from flexrelay_sdk.testkit.codecs import mutated

PATIENCE_S = 60.0
DATA, METADATA, STATUS = (f"opcua/json/{kind}/plc1" for kind in ("data", "metadata", "status"))
KW = int.from_bytes(b"KWT", "big")
SECTION: dict[str, Any] = {
    "client_id": "c",
    "datasets": [
        {
            "registers": {
                "power_w": {"field": "Power", "unit": "kW"},
                "import_j": {"field": "Import", "unit": "Wh"},
            }
        }
    ],
}


class Fixture:
    def __init__(self, **changes: Any) -> None:
        self.hand, self.sink = Hand(), RecordingSink()
        config = PubSubConfig.from_section(
            "plant", {**SECTION, "backoff_min_s": 0.01, "backoff_max_s": 0.01, **changes}
        )
        self.adapter = PubSubAdapter(config, connect=self.hand.open, clock=lambda: AT + 5000)

    async def tell(self, *messages: Message) -> None:
        """As one batch, until it is acknowledged."""
        before = len(self.hand.acknowledged)
        await self.hand.batches.put(messages)
        await until(lambda: len(self.hand.acknowledged) == before + len(messages), PATIENCE_S, "the acknowledgement")

    async def data(self, *messages: dict[str, Any]) -> None:
        """Each in a NetworkMessage of its own."""
        await self.tell(*[Message(f"{DATA}/group", network_message(each)) for each in messages])

    def readings(self) -> list[tuple[int, dict[str, int], Notice]]:
        return [(m.observed_at - AT, dict(m.registers), Notice(m.notice)) for m in self.sink.measurements]


@asynccontextmanager
async def adapter(**changes: Any) -> AsyncIterator[Fixture]:
    fixture = Fixture(**changes)
    async with running(fixture.adapter, fixture.sink, connect_s=PATIENCE_S):
        yield fixture
    assert fixture.sink.faults == []


def power(value: int, at: int, sequence: int | None, **more: Any) -> dict[str, Any]:
    return data_set_message({"Power": value_at(value, AT + at)}, sequence, **more)


async def test_missing_sequence_numbers_note_a_gap() -> None:
    def keep_alive(sequence: int) -> dict[str, Any]:
        return {"DataSetWriterId": 1, "SequenceNumber": sequence, "MessageType": "ua-keepalive"}

    async with adapter() as fixture:
        await fixture.data(power(1, 1, 7), power(2, 2, 8), power(3, 3, 11), power(4, 4, 12))
        assert [notice for _, _, notice in fixture.readings()] == [Notice.NONE, Notice.NONE, Notice.GAP, Notice.NONE]
        await fixture.data(keep_alive(13), power(5, 5, 13))
        assert fixture.readings()[-1][2] == Notice.NONE, "a keep-alive names the number that comes next"
        await fixture.data(keep_alive(16), power(6, 6, 16))
        assert fixture.readings()[-1][2] == Notice.GAP, "two are missing before it"
        await fixture.data(power(7, 7, 2), power(8, 8, 3))  # the publisher began anew
        await fixture.data(power(9, 9, None), power(10, 10, -5), power(11, 11, 4))
        assert {notice for _, _, notice in fixture.readings()[-5:]} == {Notice.NONE}
        stats = fixture.adapter.stats
        assert (stats.missing, stats.keep_alives, stats.frames) == (4, 2, 11) and fixture.sink.dead == []


class Twice(RecordingSink):
    """Decodes each frame as it would be decoded from the journal, too."""

    async def put(self, frames: Sequence[Frame], codec: Codec) -> list[Receipt]:
        def found(by: Codec, frame: Frame) -> Decoded | str:
            try:
                return by.decode(frame)
            except DecodeError as error:
                return str(error)

        alone = PubSubCodec(PubSubConfig.from_section("plant", SECTION).datasets)
        for frame in frames:
            assert found(codec, frame) == found(alone, frame)
        return list(await super().put(frames, codec))


async def test_what_is_decoded_once_is_what_its_frame_tells_years_later() -> None:
    fixture = Fixture()
    fixture.sink = Twice()
    async with running(fixture.adapter, fixture.sink, connect_s=PATIENCE_S):
        await fixture.tell(Message(f"{METADATA}/group", metadata_message({"Power": KW, "Import": 0}, major=1)))
        for each in encoded_by_node_opcua().values():
            await fixture.data(*[{**each[kind], "DataSetWriterId": 1} for kind in ("values", "variants", "delta")])
        version = {"MajorVersion": 1}
        await fixture.data(
            power(1, 5, 1, MetaDataVersion=version),
            data_set_message({"Power": value_at(2.5, AT + 5), "Import": "7"}, 4, MetaDataVersion=version),
            data_set_message({"Power": value_at(1, AT + 5, Status={"Code": 0x40000000})}, 5, Status={"Code": 1 << 30}),
            data_set_message({"Power": value_at(1, AT, Status={"Code": 0x80000000})}, 6),
            data_set_message({"Power": True, "Import": {"UaType": 9}}, 7, MetaDataVersion=version),
        )
        await fixture.tell(Message(f"{DATA}/group", b"{"))
    assert len(fixture.sink.stored) >= 12 and fixture.sink.faults == []


async def test_a_gap_is_not_forgotten_when_the_sink_refuses() -> None:
    async with adapter() as fixture:
        await fixture.data(power(1, 1, 1))
        fixture.sink.refuse = 1
        fixture.hand.batches.put_nowait([Message(f"{DATA}/group", network_message(power(2, 2, 5)))])
        await until(lambda: fixture.sink.refused == 1, PATIENCE_S, "the refusal")
        await fixture.data(power(2, 2, 5))  # it comes again
        assert [notice for _, _, notice in fixture.readings()] == [Notice.NONE, Notice.GAP]


async def test_a_key_frame_after_a_delta_frame_holds_a_millisecond_later() -> None:
    """Both have the newest source time; other registers of one instant would be taken for a contradiction."""
    both = {"Power": value_at(2, AT + 5), "Import": value_at(7, AT + 1)}
    registers = {"power_w": 2000, "import_j": 25200}
    async with adapter() as fixture:
        key = data_set_message({"Power": value_at(1, AT + 1), "Import": value_at(7, AT + 1)}, 1)
        delta, again = power(2, 5, 2, MessageType="ua-deltaframe"), data_set_message(both, 3)
        await fixture.data(key, delta, again)
        wanted = [(1, {"power_w": 1000, "import_j": 25200}), (5, {"power_w": 2000}), (6, registers)]
        assert [reading[:2] for reading in fixture.readings()] == wanted
        await fixture.data(key, delta, again)  # QoS 1 may bring them twice
        assert [reading[:2] for reading in fixture.readings()] == wanted * 2, "the same again is a duplicate"
        await fixture.data({"Power": 1}, {"Power": 2}, {"Power": 3})  # no time at all: that of their reception
        assert [reading[0] for reading in fixture.readings()[-3:]] == [5000, 5001, 5002]


async def test_metadata_guards_the_units(caplog: pytest.LogCaptureFixture) -> None:
    watts, kilowatts = int.from_bytes(b"WTT", "big"), int.from_bytes(b"KWT", "big")
    version = {"MetaDataVersion": {"MajorVersion": 7, "MinorVersion": 1}}
    async with adapter() as fixture:
        with caplog.at_level(logging.WARNING):
            await fixture.tell(Message(f"{METADATA}/group/meter", metadata_message({"Power": watts})))
        assert "the metadata says W, the configuration kW" in caplog.text and "no field 'Import'" in caplog.text
        await fixture.data(power(1, 1, 1, **version))
        assert [reason for _, reason in fixture.sink.dead] == ["other_unit"]
        await fixture.tell(Message(f"{METADATA}/group/meter", metadata_message({"Power": kilowatts}, major=8)))
        await fixture.data(power(2, 2, 2, **version))  # of the version before: nothing is known of it any more
        version["MetaDataVersion"]["MajorVersion"] = 8
        await fixture.data(power(3, 3, 3, **version))
        assert [registers for _, registers, _ in fixture.readings()] == [{"power_w": 2000}, {"power_w": 3000}]
        assert (fixture.adapter.stats.metadata, fixture.adapter.stats.other_versions) == (2, 1)
        assert [each async for each in fixture.adapter.discover()] == ["plc1/1"]


async def test_metadata_and_status_of_node_opcua() -> None:
    async with adapter() as fixture:
        for written in encoded_by_node_opcua().values():
            await fixture.tell(
                Message(f"{METADATA}/group/meter", json.dumps(written["metadata"]).encode()),
                Message(STATUS, json.dumps(written["status"]).encode()),
            )
        assert fixture.adapter.stats.malformed == 0 and fixture.adapter.states == {"plc1": "Operational"}
        await fixture.tell(Message(STATUS, b'{"MessageType": "ua-status", "PublisherId": "plc1", "Status": "Error_3"}'))
        assert fixture.adapter.states == {"plc1": "Error"} and fixture.adapter.stats.statuses == 5


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b'{"MessageType": "ua-status", "PublisherId": "plc1", "Status": 9}',
        b'{"MessageType": "ua-status", "PublisherId": "plc1", "Status": {}}',
        b'{"MessageType": "ua-status", "PublisherId": "plc2", "Status": 2}',
        b'{"MessageType": "ua-metadata"}',
        b'{"MessageType": "ua-metadata", "MetaData": {"Fields": [], "ConfigurationVersion": {"MajorVersion": -1}}}',
        b'{"MessageType": "ua-metadata", "MetaData": {"Fields": 5}}',
        b'{"x": "' + b"x" * 70_000 + b'"}',
    ],
)
async def test_announcements_that_cannot_be_read(payload: bytes) -> None:
    async with adapter() as fixture:
        await fixture.tell(Message(f"{METADATA}/group/meter", payload), Message(STATUS, payload))
        await fixture.data(power(1, 1, 1))
        assert fixture.adapter.stats.malformed == 2 and fixture.adapter.states == {}
        assert fixture.sink.dead == [] and len(fixture.readings()) == 1


async def test_writers_of_one_message_are_devices_of_their_own() -> None:
    one, two = power(1, 1, 1), power(2, 1, 1, DataSetWriterId=2)
    named = {"DataSetWriterName": "pv", "Payload": {"Power": 3}}
    async with adapter() as fixture:
        await fixture.tell(
            Message(f"{DATA}/group", network_message(one, two, named)),
            Message(f"{DATA}/group/battery", b'{"Power": 4}'),  # no header: the topic says whose it is
            Message(f"{DATA}/group", b'{"Power": 5}'),
            Message(f"{DATA}/group", network_message(power(6, 2, 1, DataSetWriterId=None))),
        )
        found = [(s.frame.credential, s.measurements[0].registers["power_w"]) for s in fixture.sink.stored]
        names = ["plc1/1", "plc1/2", "plc1/pv", "plc1/battery", "plc1", "plc1"]
        assert found == list(zip(names, range(1000, 7000, 1000), strict=True))
        for stored in fixture.sink.stored:
            decoded = fixture.adapter.codec_for(stored.frame.channel)
            assert decoded is not None and decoded.decode(stored.frame).measurements == stored.measurements
        assert fixture.adapter.codec_for("opcua/json/status/plc1") is None
        assert fixture.adapter.channels_for("plc1/2") == [f"{DATA}/+", f"{DATA}/+/+"]


async def test_topics_of_the_systems_own() -> None:
    async with adapter(data=["plants/{device}/telemetry"], check_publisher=False) as fixture:
        await fixture.tell(
            Message("plants/north/telemetry", network_message(power(1, 1, 1), publisher="urn:plc/7")),
            Message("elsewhere", b"x"),
        )
        assert [s.frame.credential for s in fixture.sink.stored] == ["north/1"]
        assert [reason for _, reason in fixture.sink.dead] == ["topic_not_expected"]


async def test_what_is_none_of_the_configured_is_not_kept() -> None:
    async with adapter(datasets=[{**SECTION["datasets"][0], "writers": ["1"]}]) as fixture:
        event = power(1, 1, 3, MessageType="ua-event")
        await fixture.data(power(1, 1, 1, DataSetWriterId=9), data_set_message({"Other": 1}, 2), event)
        stats = fixture.adapter.stats
        assert (stats.unused, stats.events, stats.frames) == (2, 1, 0) and fixture.sink.entered == 0


GOOD, HOSTILE, ROUNDS = 1000, 100, 3


def lie(number: int, turn: int, chance: random.Random) -> Message:
    """Of a hostile publisher, which the broker knows under its own name."""
    myself, another = f"evil{number}", f"good{number}"
    strangers = [power(1, n, n, DataSetWriterId=chance.randrange(10**9)) for n in range(10)]
    payload = chance.choice(
        [
            network_message(power(turn, turn, turn), publisher=myself),
            network_message(*strangers, publisher=myself),
            network_message(power(1, 1, 1), publisher=another),
            network_message(power(1, 1, 2**32 - 1, Timestamp="9999-12-31T23:59:59Z"), publisher=myself),
            metadata_message({"Power": 5}, publisher=another),
            b"[" * 5000,
            b'{"MessageType": "ua-data", "Messages": [' + b",".join([b"{}"] * 256) + b"]}",
        ]
    )
    kind = chance.choice(["data", "data", "data", "metadata", "status"])
    level = f"/{chance.randrange(10**9)}" if kind != "status" else ""
    payload = payload if chance.random() < 0.5 else mutated(payload, chance)
    return Message(f"opcua/json/{kind}/{myself}{level}", payload)


async def test_a_thousand_good_publishers_beside_a_hundred_hostile_ones() -> None:
    """Writers, metadata, numbers and bytes of the hostile ones are lies; they can only fill their own bounds."""
    chance = random.Random(told_seed())
    async with adapter(max_publishers=GOOD + HOSTILE, max_writers=16) as fixture:
        for turn in range(1, ROUNDS + 1):
            values = [(n, power(turn * 10_000 + n, turn, turn)) for n in range(GOOD)]
            batch = [
                Message(f"opcua/json/data/good{n}/g", network_message(value, publisher=f"good{n}"))
                for n, value in values
            ]
            batch += [lie(n % HOSTILE, turn, chance) for n in range(5 * HOSTILE)]
            chance.shuffle(batch)
            await fixture.tell(*batch)
        good = [s for s in fixture.sink.stored if s.frame.credential.startswith("good")]
        assert len(good) == GOOD * ROUNDS and fixture.adapter.connected
        for stored in good:
            (reading,) = stored.measurements
            number = int(stored.frame.credential.removeprefix("good").removesuffix("/1"))
            assert reading.registers["power_w"] // 1000 % 10_000 == number and reading.notice == Notice.NONE
        known = [each async for each in fixture.adapter.discover()]
        assert len(known) <= GOOD + 16 * HOSTILE and fixture.adapter.stats.untracked > 0
        assert not [frame for frame, _ in fixture.sink.dead if frame.credential.startswith("good")]


async def test_a_topic_of_endless_levels_is_nobodys() -> None:
    """The names of publishers and writers are remembered."""
    name = "w" * 1000
    body = network_message(power(1, 1, 1, writer=None))
    async with adapter() as fixture:
        await fixture.tell(*(Message(f"{topic}/group/{name}", body) for topic in (DATA, METADATA)))
        await fixture.tell(Message(f"{DATA}/group/w", body))
        assert [why for _, why in fixture.sink.dead] == ["topic_not_expected"] * 2
        assert list(fixture.adapter._writers) == ["plc1/w"] and len(fixture.readings()) == 1
