"""kill -9 of a gateway that takes uplinks, of ChirpStack from its broker and of The Things Stack by webhook: what it
acknowledged is in the journal, whole and once; and of one that sends downlinks. `make soak` runs the full counts.
"""

from __future__ import annotations

import hashlib
import random
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from conformance.adapters.lorawan.rig import ACCOUNTS, DOWN, EUI, SECRET, BrokerRig
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.commanding_gateway import CommandingGateway
from support.http_device import free_port
from support.kills import Publishing, Pushing, kills_amid_commands, kills_behind_a_broker, kills_over_http
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder

from flexrelay.demo.broker import Account
from flexrelay_adapters.lorawan.standins import SERVERS

EUIS = [f"a84041ffff18{number:04x}" for number in range(20)]
START_MS = 1_700_000_000_000
TOKEN = "token of the network server"
CI_KILLS, SOAK_KILLS = 5, 60
PORTS = [
    {
        "f_ports": [2],
        "binary": {"fields": {"e": {"offset": 0, "length": 4}}},
        "registers": {"import_j": {"pointer": "/e", "unit": "Wh"}},
    }
]


def uplink(server: str, application: str, number: int, count: int) -> tuple[str, bytes]:
    """A reading every ten minutes, as the network server writes it."""
    eui = EUIS[number]
    at_ms = START_MS + 600_000 * count
    return SERVERS[server](application).uplink(eui, eui, count, at_ms, 2, count.to_bytes(4, "big"))


async def by_broker(folder: Path, kills: int) -> None:
    accounts = (
        Account("gw", "gw", read=("application/#",)),
        Account("server", "server", write=("application/#",)),
    )
    async with mosquitto(folder / "broker", accounts) as broker:
        recorder = AckRecorder(broker.port)
        async with recorder.running():
            way: dict[str, Any] = {"host": "127.0.0.1", "port": recorder.port, "application": "app"}
            section = {
                "server": "chirpstack", "client_id": "gw", "username": "gw", "password": "gw", "ports": PORTS,
                "mqtt": {**way, "options": {"backoff_min_s": 0.05}},
            }  # fmt: skip
            load = Publishing(
                broker.port, "server", "server",
                lambda n: uplink("chirpstack", "app", n % len(EUIS), n // len(EUIS)),
            )  # fmt: skip
            gateway = KilledGateway(folder, "lorawan", section, EUIS)
            await kills_behind_a_broker(gateway, recorder, load, kills, random.Random(told_seed()))


async def by_webhook(folder: Path, kills: int) -> None:
    (folder / "tokens").write_text(f"server:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    port = free_port()
    section = {"server": "things_stack", "http": {"port": port, "tokens_file": "tokens"}, "ports": PORTS}
    load = Pushing(
        port, "/lorawan/up", len(EUIS), lambda _: {"authorization": f"Bearer {TOKEN}"},
        lambda number, count: uplink("things_stack", "app@tenant", number, count)[1],
    )  # fmt: skip
    await kills_over_http(KilledGateway(folder, "lorawan", section, EUIS), load, kills, random.Random(told_seed()))


class Device(BrokerRig):
    """The network server and the device behind it."""

    heard = 0

    @property
    def done(self) -> list[int]:
        return [parameters["power_w"] for _, parameters in self.acts()]

    async def hear(self, payload: bytes, client: aiomqtt.Client) -> None:
        self.heard += 1
        await super().hear(payload, client)


async def amid_commands(folder: Path, kills: int) -> None:
    """A downlink has its command's id: the network server knows it when it comes again."""
    async with mosquitto(folder / "broker", ACCOUNTS) as broker:
        device = Device("chirpstack", broker, AckRecorder(broker.port))
        await device.wake()
        section = {
            "server": "chirpstack", "client_id": "gw", "username": "gateway", "password": SECRET, "ports": PORTS,
            "mqtt": {"host": "127.0.0.1", "port": broker.port, "application": "app"}, "commands": {"set_power": DOWN},
        }  # fmt: skip
        try:
            start = partial(CommandingGateway.started, folder, "lorawan", section, EUI)
            await kills_amid_commands(device, start, kills, random.Random(told_seed()))
        finally:
            await device.sleep()


@pytest.mark.mosquitto
@pytest.mark.timeout(600)
async def test_a_few_kills_amid_commands(tmp_path: Path) -> None:
    await amid_commands(tmp_path, 2)


@pytest.mark.soak
@pytest.mark.mosquitto
@pytest.mark.timeout(3600)
async def test_many_kills_amid_commands(tmp_path: Path) -> None:
    await amid_commands(tmp_path, SOAK_KILLS)


@pytest.mark.mosquitto
@pytest.mark.timeout(600)
async def test_a_few_kills_behind_chirpstacks_broker(tmp_path: Path) -> None:
    await by_broker(tmp_path, CI_KILLS)


@pytest.mark.timeout(600)
async def test_a_few_kills_behind_the_things_stacks_webhook(tmp_path: Path) -> None:
    await by_webhook(tmp_path, CI_KILLS)


@pytest.mark.soak
@pytest.mark.mosquitto
@pytest.mark.timeout(3600)
async def test_many_kills_behind_chirpstacks_broker(tmp_path: Path) -> None:
    await by_broker(tmp_path, SOAK_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills_behind_the_things_stacks_webhook(tmp_path: Path) -> None:
    await by_webhook(tmp_path, SOAK_KILLS)
