"""1,000 good edge nodes and 100 hostile ones on one host: nobody disturbs the others, and nothing grows without end."""

from __future__ import annotations

import random

from support.chance import told_seed
from support.mqtt_hand import Hand, Message

from flexrelay_adapters.sparkplug import SparkplugAdapter, SparkplugConfig
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_sdk.testkit import RecordingSink, running, until
from flexrelay_sdk.testkit.codecs import mutated

GOOD, HOSTILE, ROUNDS = 1000, 100, 5
SECTION = {
    "client_id": "c",
    "host_id": "h",
    "registers": {"power_w": {"metric": "Power", "unit": "W"}},
    "max_nodes": GOOD + 10,
    "max_devices": 50,
    "rebirth_interval_s": 3600,
}


def birth() -> bytes:
    payload = Payload(timestamp=1_700_000_000_000, seq=0)
    payload.metrics.add(name="bdSeq", long_value=0)
    payload.metrics.add(name="Power", alias=1, datatype=10, is_null=True)
    return payload.SerializeToString()


def data(seq: int, value: float) -> bytes:
    payload = Payload(timestamp=1_700_000_000_000 + seq, seq=seq)
    payload.metrics.add(alias=1, double_value=value)
    return payload.SerializeToString()


async def test_the_good_ones_are_not_disturbed() -> None:
    chance, hand, sink = random.Random(told_seed()), Hand(), RecordingSink()
    adapter = SparkplugAdapter(SparkplugConfig.from_section("plant", SECTION), connect=hand.open)

    def evil(number: int, turn: int) -> Message:
        kind = chance.choice(["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH", "NCMD", "STATE"])
        node = f"spBv1.0/g/{kind}/evil{number}"
        topic = f"{node}/{chance.randrange(10**9)}" if kind.startswith("D") else node
        payload = mutated(chance.choice([birth(), data(turn, 1.0)]), chance)
        return Message(chance.choice([topic, topic, f"{topic}/x", "spBv1.0/STATE/h"]), payload)

    async with running(adapter, sink):
        await hand.batches.put([Message(f"spBv1.0/g/NBIRTH/n{n}", birth()) for n in range(GOOD)])
        for turn in range(1, ROUNDS + 1):
            batch = [Message(f"spBv1.0/g/NDATA/n{n}", data(turn, turn * 10_000 + n)) for n in range(GOOD)]
            batch += [evil(n % HOSTILE, turn) for n in range(10 * HOSTILE)]
            chance.shuffle(batch)
            await hand.batches.put(batch)
        await until(lambda: len(hand.acknowledged) == GOOD + ROUNDS * (GOOD + 10 * HOSTILE), 60)
    good = [s for s in sink.stored if not s.frame.credential.startswith("g/evil")]
    assert len(good) == GOOD * ROUNDS and sink.faults == []
    assert all(s.measurements[0].registers["power_w"] % 10_000 == int(s.frame.credential[3:]) for s in good)
    assert adapter.stats.turned_away > 0 and len(list(adapter._nodes.born())) <= GOOD + 60
    asked = {topic for topic, _, _, _ in hand.published if "/NCMD/" in topic}
    assert all("/evil" in topic for topic in asked), "a good node was asked for its birth"
    assert hand.published[0][0] == "spBv1.0/STATE/h" and hand.published[0][2:] == (1, True)
    assert b'"online":true' in hand.published[0][1] and b'"online":false' in hand.published[-1][1]


async def test_a_node_is_asked_again_when_the_interval_is_over() -> None:
    hand, sink, clock = Hand(), RecordingSink(), [1_000_000]
    section = {**SECTION, "rebirth_interval_s": 5}
    adapter = SparkplugAdapter(
        SparkplugConfig.from_section("plant", section), connect=hand.open, clock=lambda: clock[0]
    )

    def asked() -> int:
        return sum("/NCMD/" in topic for topic, _, _, _ in hand.published)

    async with running(adapter, sink):
        for count, (seq, at) in enumerate([(3, 0), (4, 1), (9, 4999), (10, 5001), (11, 5002)], 1):
            clock[0] = 1_000_000 + at
            await hand.batches.put([Message("spBv1.0/g/NDATA/n", data(seq, 1.0))])
            await until(lambda wanted=count: len(hand.acknowledged) == wanted)  # type: ignore[misc]  # bound now
        assert asked() == 2
        await hand.batches.put([Message("spBv1.0/g/NBIRTH/n", birth()), Message("spBv1.0/g/NDATA/n", data(1, 2.0))])
        clock[0] += 60_000
        await hand.batches.put([Message("spBv1.0/g/NDATA/n", data(2, 3.0))])
        await until(lambda: len(hand.acknowledged) == 8)
        assert asked() == 2 and sink.values()[-2:] == [2, 3]


async def test_an_alias_of_64_bits() -> None:
    """Some nodes make aliases of hashes."""
    hand, sink = Hand(), RecordingSink()
    adapter = SparkplugAdapter(SparkplugConfig.from_section("plant", SECTION), connect=hand.open)
    born = Payload(timestamp=1_700_000_000_000, seq=0)
    born.metrics.add(name="Power", alias=2**64 - 1, datatype=10, is_null=True)
    told = Payload(timestamp=1_700_000_000_001, seq=1)
    told.metrics.add(alias=2**64 - 1, double_value=7.0)
    async with running(adapter, sink):
        await hand.batches.put([Message("spBv1.0/g/NBIRTH/n", born.SerializeToString())])
        await hand.batches.put([Message("spBv1.0/g/NDATA/n", told.SerializeToString())])
        await until(lambda: len(hand.acknowledged) == 2, 60)
    assert sink.values() == [7]


async def test_a_node_that_is_another_after_its_rebirth() -> None:
    """Its aliases mean something else from then on; what came before, and what comes in between, is read as it was
    meant."""
    hand, sink = Hand(), RecordingSink()
    adapter = SparkplugAdapter(SparkplugConfig.from_section("plant", SECTION), connect=hand.open)

    def born(power_alias: int) -> Message:
        payload = Payload(timestamp=1_700_000_000_000, seq=0)
        payload.metrics.add(name="bdSeq", long_value=power_alias)
        for alias, name in enumerate(("Power", "Other") if power_alias == 1 else ("Other", "Power"), 1):
            payload.metrics.add(name=name, alias=alias, datatype=10, is_null=True)
        return Message("spBv1.0/g/NBIRTH/n", payload.SerializeToString())

    def told(seq: int, alias: int, value: float) -> Message:
        payload = Payload(timestamp=1_700_000_000_000 + int(value), seq=seq)
        payload.metrics.add(alias=alias, double_value=value)
        return Message("spBv1.0/g/NDATA/n", payload.SerializeToString())

    async with running(adapter, sink):
        batch = [born(1), told(1, 1, 10), told(2, 2, 99), born(2), told(1, 1, 99), told(2, 2, 20)]
        await hand.batches.put(batch)
        await until(lambda: len(hand.acknowledged) == len(batch), 60)
        assert sink.values() == [10, 20] and sink.dead == []
        codec = adapter.codec_for(sink.frames[0].channel)
        assert codec is not None
        assert [codec.decode(frame).measurements[0].registers["power_w"] for frame in sink.frames] == [10, 20]
