"""kill -9 of a gateway that takes Ultralight from a broker: what it acknowledged is in the journal, whole and once.

`make soak` runs the full count.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.kills import Publishing, kills_behind_a_broker
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder

from flexrelay.demo.broker import Account

pytestmark = pytest.mark.mosquitto

DEVICES = 50
CI_KILLS, SOAK_KILLS = 5, 60


def measure(number: int) -> tuple[str, bytes]:
    """One a second and device, for a day."""
    device, at = number % DEVICES, number // DEVICES
    clock = f"2023-11-14T{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}Z"
    return f"/ul/key/d{device}/attrs", f"{clock}|e|{number}|n|{number}".encode()


async def campaign(folder: Path, kills: int) -> None:
    accounts = (Account("gw", "gw", read=("/ul/#",), write=("/+/+/cmd",)), Account("load", "load", write=("/ul/#",)))
    async with mosquitto(folder / "broker", accounts) as broker:
        recorder = AckRecorder(broker.port)
        async with recorder.running():
            mqtt = {
                "port": recorder.port, "client_id": "gw", "username": "gw", "password": "gw", "backoff_min_s": 0.05,
            }  # fmt: skip
            section = {"mqtt": mqtt, "codec": {"registers": {"import_j": {"pointer": "/e", "unit": "Wh"}}}}
            gateway = KilledGateway(folder, "ultralight", section, [f"key/d{number}" for number in range(DEVICES)])
            load = Publishing(broker.port, "load", "load", measure)
            await kills_behind_a_broker(gateway, recorder, load, kills, random.Random(told_seed()))


@pytest.mark.timeout(600)
async def test_a_few_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, CI_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, SOAK_KILLS)
