"""1,000 good devices and 100 hostile ones over one broker; one instant a reading."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from support.chance import told_seed
from support.mqtt_hand import Hand, Message

from flexrelay_adapters.fiware_json import FiwareJson
from flexrelay_adapters.iotagent import Dialect, IotAgentAdapter, IotAgentConfig
from flexrelay_adapters.ultralight import Ultralight
from flexrelay_sdk.mapping import MAX_ITEMS
from flexrelay_sdk.testkit import RecordingSink, running, until
from flexrelay_sdk.testkit.codecs import mutated

GOOD, HOSTILE, ROUNDS = 1000, 100, 3
SECTION = {
    "mqtt": {"client_id": "c"},
    "codec": {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}},
    "commands": {"set_power": {}},
}
WORDS = {"ultralight": b"p|%d", "fiware_json": b'{"p": %d}'}


def made(dialect: Dialect, hand: Hand, **more: Any) -> IotAgentAdapter:
    config = IotAgentConfig.from_section("farm", {**SECTION, **more}).at(Path())
    return IotAgentAdapter(config, dialect, connect=hand.open)


@pytest.mark.parametrize("dialect", [Ultralight(), FiwareJson()], ids=["ultralight", "fiware_json"])
async def test_the_good_ones_are_not_disturbed(dialect: Dialect) -> None:
    chance, hand, sink = random.Random(told_seed()), Hand(), RecordingSink()
    adapter, words = made(dialect, hand), WORDS[dialect.protocol]

    def evil(number: int) -> Message:
        kind = chance.choice(["attrs", "attrs/p", "cmdexe", "attrs/p/q", "cmd", "", "x"])
        return Message(f"/{dialect.level}/key/evil{number}/{kind}", mutated(words % 7, chance))

    async with running(adapter, sink):
        for turn in range(1, ROUNDS + 1):
            batch = [Message(f"/{dialect.level}/key/n{n}/attrs", words % (turn * 10_000 + n)) for n in range(GOOD)] + [
                evil(n % HOSTILE) for n in range(10 * HOSTILE)
            ]
            chance.shuffle(batch)
            await hand.batches.put(batch)
        await until(lambda: len(hand.acknowledged) == ROUNDS * (GOOD + 10 * HOSTILE), 60)
    good = [s for s in sink.stored if "/evil" not in s.frame.credential]
    assert len(good) == GOOD * ROUNDS and sink.faults == []
    assert all(s.measurements[0].registers["power_w"] % 10_000 == int(s.frame.credential[5:]) for s in good)


async def test_readings_without_a_time_get_an_instant_each() -> None:
    hand, sink = Hand(), RecordingSink()
    async with running(made(Ultralight(), hand), sink):
        topic = "/ul/key/m/attrs"
        await hand.batches.put([Message(topic, b"p|1#p|2"), Message(topic, b"p|3"), Message(topic, b"p|4#p|5")])
        await hand.batches.put([Message(topic, b"p|6")])
        await until(lambda: len(hand.acknowledged) == 4)
    instants = [m.observed_at for m in sink.measurements]
    assert sink.values() == [1, 2, 3, 4, 5, 6] and instants == sorted(set(instants))


@pytest.mark.parametrize("dialect", [Ultralight(), FiwareJson()], ids=["ultralight", "fiware_json"])
async def test_what_looks_like_many_groups_takes_no_more_instants_than_groups_may(dialect: Dialect) -> None:
    """Else the device's next readings would lie ahead of their time."""
    hand, sink = Hand(), RecordingSink()
    adapter = made(dialect, hand)
    assert adapter.link is not None
    adapter.link.clock = lambda: 1000
    async with running(adapter, sink):
        topic = f"/{dialect.level}/key/m/attrs"
        await hand.batches.put(
            [Message(topic, b"[" + 60_000 * b"#" + 5_000 * b"{"), Message(topic, WORDS[dialect.protocol] % 2)]
        )
        await until(lambda: len(hand.acknowledged) == 2, 60)
    assert sink.values() == [2] and sink.measurements[0].observed_at <= 1000 + MAX_ITEMS


async def test_a_clock_that_is_set_back_gives_the_time_that_it_shows() -> None:
    hand, sink, clock = Hand(), RecordingSink(), [7_200_000]
    adapter = made(Ultralight(), hand)
    assert adapter.link is not None
    adapter.link.clock = lambda: clock[0]
    async with running(adapter, sink):
        for count, clock[0] in enumerate((7_200_000, 1000, 1000), 1):
            await hand.batches.put([Message("/ul/key/m/attrs", b"p|1")])
            await until(lambda wanted=count: len(hand.acknowledged) == wanted, 60)  # type: ignore[misc]  # bound now
    assert [measurement.observed_at for measurement in sink.measurements] == [7_200_000, 1000, 1001]


@pytest.mark.parametrize("attribute", ["p" * 65_000, '"' * 65_000])
async def test_an_attribute_of_a_whole_topic_is_no_attribute(attribute: str) -> None:
    hand, sink = Hand(), RecordingSink()
    async with running(made(Ultralight(), hand), sink):
        await hand.batches.put([Message(f"/ul/key/evil/attrs/{attribute}", b"1"), Message("/ul/key/m/attrs", b"p|2")])
        await until(lambda: len(hand.acknowledged) == 2, 60)
    assert [why for _, why in sink.dead] == ["topic_not_expected"] and sink.values() == [2]


async def test_more_names_than_a_frame_keeps(tmp_path: Path) -> None:
    """Several services of one API key, each with many attributes: what that key's devices send becomes dead letters."""
    hand, sink = Hand(), RecordingSink()
    provisioning = {"port": 0, "token": "x" * 20}
    adapter = made(Ultralight(), hand, provisioning=provisioning, state=str(tmp_path))
    async with running(adapter, sink):
        await until(lambda: adapter.known is not None, 60)
        assert adapter.known is not None
        attributes = [{"object_id": f"o{n}", "name": f"{n:0200}"} for n in range(400)]
        services = [{"apikey": "big", "resource": "/iot/d", "attributes": attributes}]
        adapter.known.add_services("farm", "/", services)
        await hand.batches.put([Message("/ul/big/m/attrs", b"p|1"), Message("/ul/key/m/attrs", b"p|2")])
        await until(lambda: len(hand.acknowledged) == 2, 60)
    assert [why for _, why in sink.dead] == ["bad_envelope"] and sink.values() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mqtt": None}, "at least one of mqtt and http"),
        ({"provisioning": {"token": "x" * 20}}, "state"),
        ({"provisioning": {"token": "short"}, "state": "s"}, r"^provisioning\.token"),
        ({"apikeys": ["a/b"]}, r"^apikeys\.0"),
        ({"mqtt": {"client_id": "c", "command_topic": "/{device}/cmd"}}, r"^mqtt\.command_topic"),
        ({"commands": {"fly": {}}}, "^commands: .*unknown command"),
        ({"commands": {"set_power": {"value": {"parameter": "power_w"}}}}, "^commands: .*unit"),
        ({"commands": {"set_power": {"failed": "("}}}, r"^commands\.set_power\.failed"),
        ({"commands": {"set_power": {"name": "x"}, "switch": {"name": "x"}}}, "^commands: .*one name"),
        ({"codec": {**SECTION["codec"], "items": "/list"}}, "items"),  # type: ignore[dict-item]  # a section
    ],
)
def test_a_wrong_configuration_names_its_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(Ultralight(), Hand(), **change)
