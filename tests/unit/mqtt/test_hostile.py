"""1,000 good devices that sign and 100 hostile ones over one broker, to the journal: nobody disturbs the others."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from support.chance import told_seed
from support.contracts import Party, sign
from support.crowd import GOOD, HOSTILE, bounded_memory
from support.mqtt_hand import Hand, Message
from support.readings import NOW, ingest_path, signed_payload

from flexrelay.ingest import NativeCodec
from flexrelay_adapters.mqtt import MqttAdapter, MqttConfig
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import split_did
from flexrelay_sdk.testkit import running, until

ROUNDS = 3
SECTION = {"client_id": "gw", "readings": ("r/{device}/readings",), "max_payload_bytes": 2**16}


def topic(party: Party) -> str:
    return f"r/{split_did(party.did)[1]}/readings"


def reading(party: Party, turn: int) -> bytes:
    return signed_payload(party, NOW - 60_000 + turn * 1000, {"import_j": turn * 10}, turn)


def resigned(party: Party, **changes: object) -> bytes:
    """Signed by the hostile device itself, without the checks of the model."""
    told = {
        "did": party.did, "key_version": 1, "network": party.operation.network, "observed_at": NOW - 1000,
        "registers": {"import_j": 1}, "seq": 1, **changes,
    }  # fmt: skip
    signature = sign(party.private, b"flexrelay-reading-v1" + canonical(told))
    return json.dumps({"v": 1, "reading": told, "signature": signature}).encode()


def attacks(evil: Party, victim: Party) -> list[tuple[bytes, str]]:
    """(Payload on its own topic, the reason that it must get)."""
    whole = reading(victim, 1)
    mine = reading(evil, 1)
    return [
        (whole, "wrong_identity"),  # somebody else's reading, replayed
        (resigned(evil, did=victim.did), "wrong_identity"),
        (mine.replace(b'"import_j":10', b'"import_j":11'), "signature"),
        (resigned(evil, network="elsewhere"), "wrong_network"),
        (resigned(evil, key_version=7), "key_version"),
        (resigned(evil, observed_at=NOW + 3_600_000), "future"),
        (resigned(evil, observed_at=NOW - 10 * 365 * 86_400_000), "stale"),
        (mine[:-20], "malformed"),
        (b"[" * 60_000, "malformed"),
        (mine.replace(b'"import_j":10', b'"import_j":' + b"9" * 5000), "malformed"),
        (b"\xff" * 100, "not_utf8"),
        (b"x" * 70_000, "too_large"),
        (b"", "malformed"),
    ]


async def test_the_good_ones_are_not_disturbed(tmp_path: Path) -> None:
    chance, hand = random.Random(told_seed()), Hand()
    good, hostile = [Party.new("device") for _ in range(GOOD)], [Party.new("device") for _ in range(HOSTILE)]
    stranger = Party.new("device")
    adapter = MqttAdapter(MqttConfig.from_section("plant", SECTION), NativeCodec(), connect=hand.open)
    expected: Counter[tuple[str, str]] = Counter()
    async with ingest_path(tmp_path, *good, *hostile) as path:
        count = 0
        with bounded_memory():
            async with running(adapter, path.ingest):
                for turn in range(1, ROUNDS + 1):
                    batch = [Message(topic(party), reading(party, turn)) for party in good]
                    for evil in hostile:
                        for payload, reason in attacks(evil, chance.choice(good)):
                            batch.append(Message(topic(evil), payload))
                            expected[evil.did, reason] += 1
                        batch.append(Message(topic(stranger), reading(evil, turn)))
                        batch.append(Message("r/no/such/topic", b"{}"))
                        expected["", "unknown_device"] += 1
                        expected["", "no_identity"] += 1
                    chance.shuffle(batch)
                    count += len(batch)
                    for at in range(0, len(batch), adapter.config.batch):
                        await hand.batches.put(batch[at : at + adapter.config.batch])
                await until(lambda: len(hand.acknowledged) == count, 120, "the acknowledgements")
        stored: Counter[str] = Counter()
        position = 0
        while entries := await path.journal.read(position, 2000):
            stored.update(entry.did for entry in entries)
            position = entries[-1].position
        assert stored == Counter({party.did: ROUNDS for party in good}), "a good device was disturbed"
        letters, after = Counter[tuple[str, str]](), 0
        while found := await path.journal.letters(after, 1000):
            assert all(letter.message and (letter.credential or letter.channel) for letter in found)
            letters.update((letter.did, letter.reason) for letter in found)
            after = found[-1].letter_id
        assert letters == expected
