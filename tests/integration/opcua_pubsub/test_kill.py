"""kill -9 of a gateway that takes PubSub from a broker: what it acknowledged is in the journal, whole and once.

And what node-opcua's encoder writes comes through broker, ingest and journal.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder
from support.opcua_publisher import (
    AT,
    data_set_message,
    encode_with_node_opcua,
    encoded_by_node_opcua,
    network_message,
    value_at,
)

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.mqtt._client import MqttiumConnection
from flexrelay_adapters.opcua_pubsub import PubSubConfig
from flexrelay_adapters.opcua_pubsub.topics import Topics

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(1800)]

ACCOUNTS = (
    Account("gw", "gw", read=("opcua/json/#",)),
    Account("load", "load", write=("opcua/json/#",)),
)
WRITERS = 50
PER_KILL = 600
PATIENCE_S = 120.0


def section(port: int) -> dict[str, object]:
    registers = {"import_j": {"field": "Import", "unit": "Wh"}, "power_w": {"field": "Power", "unit": "W"}}
    return {
        "port": port,
        "client_id": "gw",
        "username": "gw",
        "password": "gw",
        "backoff_min_s": 0.05,
        "datasets": [{"registers": registers}],
    }


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[Mosquitto, AckRecorder, KilledGateway]]:
    """A broker that keeps the gateway's session, whether it is there or not."""
    async with mosquitto(folder / "broker", ACCOUNTS) as broker:
        recorder = AckRecorder(broker.port)
        async with recorder.running():
            config = PubSubConfig.model_validate(section(recorder.port))
            session = await MqttiumConnection.open(config)
            await session.subscribe(Topics(config).filters)
            await session.close()
            await recorder.settled()
            writers = [f"plc1/{number}" for number in range(WRITERS)]
            async with KilledGateway(folder, "opcua_pubsub", section(recorder.port), writers).running() as gateway:
                yield broker, recorder, gateway


async def acknowledged(recorder: AckRecorder, payloads: Iterable[bytes]) -> None:
    wanted = set(payloads)
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= recorder.acknowledged.keys():  # noqa: ASYNC110  # another process's work
            await asyncio.sleep(0.05)


async def check(folder: Path, told: Iterable[bytes]) -> int:
    """How many DataSetMessages the journal holds, of which each of `told` must be one, and none twice."""
    async with SqliteJournal(folder / "journal.db") as journal:
        await journal.verify()
        stored = Counter([bytes(entry.payload) for entry in await journal.read(0, 10**6)])
        letters = await journal.letters()
    assert not letters, f"dead letter: {letters[0].reason} {letters[0].message}"
    kept = Counter([json.dumps(json.loads(payload[payload.index(b"{") :])) for payload in stored])
    lost = [each for payload in told for each in parts(payload) if each not in kept]
    assert not lost, f"{len(lost)} acknowledged DataSetMessages are not in the journal, e.g. {lost[0][:200]}"
    assert set(stored.values()) == {1} and set(kept.values()) == {1}, "something stands twice"
    return len(kept)


def parts(payload: bytes) -> list[str]:
    return [json.dumps(each) for each in json.loads(payload)["Messages"]]


def message(number: int) -> bytes:
    """Key frames and delta frames of two writers."""
    both = [2 * number % WRITERS, (2 * number + 1) % WRITERS]
    turn = 2 * number // WRITERS
    whole = {"Import": value_at(str(turn), AT + turn), "Power": value_at(turn, AT + turn)}
    fields = whole if turn % 3 else {"Power": value_at(turn, AT + turn)}
    return network_message(*[data_set_message(fields, turn, writer, N=number) for writer in both])


async def campaign(folder: Path, kills: int) -> None:
    chance = random.Random(told_seed())
    sent: list[bytes] = []

    async def load(count: int) -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port, username="load", password="load", timeout=60) as client:
            for _ in range(count // 50):
                payloads = [message(len(sent) + n) for n in range(50)]
                await asyncio.gather(*[client.publish("opcua/json/data/plc1/g", each, qos=1) for each in payloads])
                sent.extend(payloads)
                await asyncio.sleep(0.02)

    async with site(folder) as (broker, recorder, gateway):
        for _ in range(kills):
            loading = asyncio.create_task(load(PER_KILL))
            before = sum(recorder.acknowledged.values())
            async with asyncio.timeout(PATIENCE_S):
                while sum(recorder.acknowledged.values()) == before:  # noqa: ASYNC110  # another process's work
                    await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await gateway.kill()
            await recorder.settled()
            await check(folder, recorder.acknowledged)
            await gateway.start()
            await loading
        await acknowledged(recorder, sent)
        await gateway.kill()
        await recorder.settled()
        count = await check(folder, sent)
        assert count == 2 * len(sent) and recorder.foreign == 0
        print(f"\n{kills} kills, {len(sent):,} messages, {count:,} readings in the journal")


async def test_what_was_acknowledged_is_in_the_journal(tmp_path: Path) -> None:
    await campaign(tmp_path, 3)


@pytest.mark.soak
async def test_what_was_acknowledged_is_in_the_journal_after_fifty_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, 50)


async def test_what_node_opcua_encodes_comes_to_the_journal(tmp_path: Path) -> None:
    """Metadata, then key frame, Variants and delta frame in each of its four encodings, each as a writer of its own."""
    told = await asyncio.to_thread(encode_with_node_opcua)
    assert told == encoded_by_node_opcua(), "what was captured is not what the encoder writes"
    payloads = []
    async with (
        site(tmp_path) as (broker, recorder, _),
        aiomqtt.Client("127.0.0.1", broker.port, username="load", password="load", timeout=60) as client,
    ):
        for writer, (encoding, written) in enumerate(told.items(), 1):
            metadata = json.dumps({**written["metadata"], "DataSetWriterId": writer}).encode()
            await client.publish(f"opcua/json/metadata/plc1/g/{encoding}", metadata, qos=1, retain=True)
            for kind in ("delta", "values", "variants"):
                payloads.append(network_message({**written[kind], "DataSetWriterId": writer}))
                await client.publish(f"opcua/json/data/plc1/g/{encoding}", payloads[-1], qos=1)
        await acknowledged(recorder, payloads)
    async with SqliteJournal(tmp_path / "journal.db") as journal:
        entries = await journal.read(0, 1000)
        letters = await journal.letters()
    # the metadata says kW and Wh; the configuration W and Wh: the power is refused, the import is taken
    assert sorted({letter.reason for letter in letters}) == ["other_unit"] and len(letters) == len(told)
    for number in range(1, len(told) + 1):
        mine = [m for entry in entries for m in entry.measurements if entry.credential == f"plc1/{number}"]
        assert [dict(m.registers) for m in mine] == [{"import_j": 18_000_000}] * 2
        assert [m.observed_at - AT for m in mine] == [-40, 1000]
