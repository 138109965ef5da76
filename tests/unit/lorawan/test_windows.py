"""A downlink that tells no beginning goes to the network server when the command's window begins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.mqtt_hand import Hand

from flexrelay_adapters.lorawan import LorawanMqtt, make_adapter
from flexrelay_sdk import Command
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(300)
EUI = "a84041ffff000001"
POWER, UNTIL = {"offset": 1, "length": 4, "type": "int"}, {"offset": 5, "length": 4, "scale": 3}
FROM = {"offset": 9, "length": 4, "scale": 3}


@pytest.mark.parametrize("told", [False, True])
async def test_when_it_goes(told: bool) -> None:
    fields: dict[str, Any] = {"power_w": POWER, "until_ms": UNTIL, **({"from_ms": FROM} if told else {})}
    section = {
        "server": "chirpstack",
        "client_id": "c",
        "mqtt": {"host": "127.0.0.1", "application": "app"},
        "ports": [
            {
                "f_ports": [2],
                "binary": {"length": 4, "fields": {"p": {"offset": 0, "length": 4}}},
                "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
            }
        ],
        "commands": {"set_power": {"f_port": 10, "fields": fields}},
    }
    hand, life = Hand(), Life()
    adapter = make_adapter("field", section, Path(), NoNativeCodec())
    assert isinstance(adapter, LorawanMqtt)
    adapter.link._connect = hand.open
    begins_at = wall_ms() + (600_000 if told else 800)
    window = {"power_w": 1, "from_ms": 5_000_000, "until_ms": 5_060_000}
    order = Command("c", "did:x", EUI, "set_power", window, begins_at + 60_000, "o")
    async with running(adapter, RecordingSink()):
        executing = asyncio.create_task(adapter.execute(order, life))
        await until(lambda: bool(hand.published), 60)
        sent_at = wall_ms()
        assert (sent_at < begins_at) if told else (sent_at >= begins_at - 100)
        executing.cancel()
        await asyncio.gather(executing, return_exceptions=True)
