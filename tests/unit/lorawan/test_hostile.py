"""Uplinks of 1,000 good devices and 100 hostile ones from both network servers: nobody disturbs the others."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conformance.adapters.lorawan.rig import EUI, PORTS, UPS
from support.chance import told_seed
from support.crowd import GOOD, HOSTILE, bounded_memory, nobody_was_disturbed
from support.mqtt_hand import Hand, Message

from flexrelay_adapters.lorawan import LorawanMqtt, make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

ROUNDS = 3
TOPICS = {"chirpstack": "application/app/device/{}/event/up", "things_stack": "v3/app@tenant/devices/{}/up"}


def uplink(server: str, eui: str, value: int, **changes: Any) -> bytes:
    text = json.dumps({**UPS[server](value.to_bytes(4, "big"), value % 65_000), **changes})
    return text.replace(EUI, eui).encode()


def attacks(server: str, evil: str, victim: str) -> list[tuple[bytes, str]]:
    """(Payload on its own topic, the reason that it must get)."""
    good = uplink(server, evil, 7)
    return [
        (uplink(server, victim, 7), "wrong_sender"),
        (good[:-9], "not_json"),
        (b"[" * 50_000, "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b"[]", "not_an_uplink"),
        (good.replace(b"AAAABw==", b"AAA="), "too_short"),
        (good.replace(b"AAAABw==", b"!!!!"), "not_base64"),
        (good[:-1] + b',"x":"' + b"x" * 70_000 + b'"}', "oversized"),
    ]


@pytest.mark.parametrize("server", sorted(TOPICS))
async def test_the_good_ones_are_not_disturbed(server: str) -> None:
    chance, hand, sink = random.Random(told_seed()), Hand(), RecordingSink()
    application = "app" if server == "chirpstack" else "app@tenant"
    section = {
        "server": server,
        "client_id": "c",
        "mqtt": {"host": "127.0.0.1", "application": application},
        "ports": PORTS,
    }
    adapter = make_adapter("field", section, Path(), NoNativeCodec())
    assert isinstance(adapter, LorawanMqtt)
    adapter.link._connect = hand.open
    good = [f"a84041{n:010x}" for n in range(GOOD)]
    hostile = [f"eeeeee{n:010x}" for n in range(HOSTILE)]
    judged: dict[str, Counter[str]] = {evil: Counter() for evil in ("", *hostile)}
    count = 0
    with bounded_memory():
        async with running(adapter, sink):
            for turn in range(ROUNDS):
                topic = TOPICS[server].format
                batch = [Message(topic(eui), uplink(server, eui, turn * 10_000 + n)) for n, eui in enumerate(good)]
                for evil in hostile:
                    for payload, reason in attacks(server, evil, chance.choice(good)):
                        batch.append(Message(topic(evil), payload))
                        judged[evil][reason] += 1
                    batch.append(Message(topic(evil) + "/more", b"{}"))  # the topic names nobody
                    judged[""]["topic_not_expected"] += 1
                chance.shuffle(batch)
                count += len(batch)
                await hand.batches.put(batch)
            await until(lambda: len(hand.acknowledged) == count, 120, "the acknowledgements")
    expected = {eui: [turn * 10_000 + n for turn in range(ROUNDS)] for n, eui in enumerate(good)}
    nobody_was_disturbed(sink, expected, judged)
