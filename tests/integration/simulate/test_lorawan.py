"""`flexrelay simulate` over LoRaWAN, as both network servers write it: readings come into the journal exactly,
downlinks are obeyed, and their empty acknowledgements are no dead letters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.mosquitto import mosquitto
from support.simulated import (
    NAMES,
    PATIENCE_S,
    T0,
    Readings,
    command,
    devices,
    expected,
    gateway,
    living,
    obeyed_with_ramp,
    plan,
    shown,
    told,
    until_stored,
)

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay_adapters.lorawan import LorawanMqtt, make_adapter
from flexrelay_adapters.lorawan.simulator import LorawanSimulator, Radio, adapter_section, eui_of, make_simulator
from flexrelay_adapters.lorawan.standins import SERVERS
from flexrelay_sdk import CommandState
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.simulation import Plan
from flexrelay_sdk.testkit import until

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(300)]
TOPICS = ("application/#", "v3/#")
ACCOUNTS = (
    Account("server", "secret-of-server", read=TOPICS, write=TOPICS),
    Account("gw", "secret-of-gw", read=TOPICS, write=TOPICS),
)
APPLICATIONS = {"chirpstack": "17c82e96-be03-4f38-aef3-f83d48582d97", "things_stack": "pilot@ttn"}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with mosquitto(tmp_path / "broker", ACCOUNTS) as started:
        yield started


def adapter(broker: Mosquitto, server: str) -> LorawanMqtt:
    section = {
        "server": server,
        "client_id": "gw",
        "username": "gw",
        "password": "secret-of-gw",
        "mqtt": {
            "host": "127.0.0.1",
            "port": broker.port,
            "application": APPLICATIONS[server],
            "options": {"backoff_min_s": 0.05},
        },
        **adapter_section(),
    }
    made = make_adapter("field", section, Path(), NoNativeCodec())
    assert isinstance(made, LorawanMqtt)
    return made


def simulator(broker: Mosquitto, server: str, when: Plan, **changes: Any) -> LorawanSimulator:
    section = {
        "port": broker.port, "server": server, "application": APPLICATIONS[server], "username": "server",
        "password": "secret-of-server", "backoff_s": 0.1,
        "protocol": "5" if server == "chirpstack" else "3.1.1", **changes,
    }  # fmt: skip
    return make_simulator(section, Path(), devices(), when, "a")


def as_carried(simulated: Readings) -> Readings:
    """Whole Wh; no voltage and current: what the payload has room for."""
    return {
        at: {
            name: value // 3600 * 3600 if name.endswith("_j") else value
            for name, value in registers.items()
            if name in ("import_j", "export_j", "power_w", "soc_permille")
        }
        for at, registers in simulated.items()
    }


@pytest.mark.parametrize("server", SERVERS)
async def test_readings_and_commands(broker: Mosquitto, tmp_path: Path, server: str) -> None:
    when = plan()
    devices_there = simulator(broker, server, when)
    credentials = [devices_there.credential(number) for number in range(5)]
    target = adapter(broker, server)
    async with gateway(tmp_path / "gw", "lorawan", credentials) as found:
        async with living(devices_there, target, found):
            for credential in credentials:
                await found.until(credential, lambda readings: len(readings) >= 6, f"readings of {credential}")
            readings = {name: await found.registers(each) for each, name in zip(credentials, NAMES, strict=True)}
            battery, pv = credentials[2], credentials[1]
            order = command("set_power", battery, power_w=1_500)
            assert await told(target, order) is CommandState.ACKED
            await found.until(battery, shown(order), "the confirmation")
            refused = command("set_power", battery, power_w=3_001)
            assert await told(target, refused) is CommandState.FAILED
            limit = command("limit_power", pv, min_power_w=-500, max_power_w=0)
            assert await told(target, limit) is CommandState.ACKED
            await found.until(pv, lambda got: got[-1].registers["power_w"] == -500, "the curtailment")
            heat = command("switch", credentials[4], on=0)
            assert await told(target, heat) is CommandState.ACKED
            await until(lambda: devices_there.stats.commands >= 4, PATIENCE_S, "the counter of commands")
        assert await found.journal.letters() == [], "an empty uplink is no dead letter"
        if target.link.connections == 1:  # what came twice would look like a counter that starts anew
            assert target.counters.missing == target.counters.restarts == 0, "and none that is missing"
        newest = max(at for got in readings.values() for at in got)
        simulated = expected(5, (newest - T0) // 10_000)
        for name, got in readings.items():
            wanted = as_carried(simulated[name])
            assert len(got) >= 6 and got == {at: wanted[at] for at in got}, name
        obeyed = await found.registers(battery)
        obeyed_with_ramp(obeyed, 1_500, 60)
        assert obeyed[max(obeyed)]["soc_permille"] > 500


async def test_downlinks_and_uplinks_outlive_the_broker(broker: Mosquitto, tmp_path: Path) -> None:
    when = plan()
    devices_there, target = simulator(broker, "chirpstack", when), adapter(broker, "chirpstack")
    credentials = [devices_there.credential(number) for number in range(5)]
    async with gateway(tmp_path / "gw", "lorawan", credentials) as found:
        async with living(devices_there, target, found):
            await until_stored(found, 10)
            await broker.restart()
            before = found.stored
            order = command("set_power", credentials[3], power_w=2_000)
            assert await told(target, order) is CommandState.ACKED
            await until_stored(found, before + 20)
        assert devices_there.stats.reconnects >= 1 and await found.journal.letters() == []
        for credential in credentials:
            got = sorted(await found.registers(credential))
            assert {after - at for at, after in pairwise(got)} == {10_000}, "a gap"


async def test_a_wrong_password_is_said_and_ends_it(broker: Mosquitto) -> None:
    with pytest.raises(ConnectionError, match=r"turns simulated-network-server away.*check username and password"):
        await simulator(broker, "chirpstack", plan(), password="wrong").run()


@pytest.mark.parametrize("server", SERVERS)
def test_the_same_seed_gives_the_same_frames(server: str) -> None:
    def frames(seed: str) -> list[tuple[str, bytes]]:
        network = SERVERS[server]("app")
        found = []
        for device in devices(9, seed):
            radio = Radio(device, eui_of(seed, device.name))
            for at in range(T0 + 10_000, T0 + 130_000, 10_000):
                port, data = radio.uplink(at)
                found.append(network.uplink(device.name, radio.eui, radio.f_cnt, at, port, data))
        return found

    assert frames("a") == frames("a") != frames("b")
    assert "fPort" not in json.loads(SERVERS["chirpstack"]("app").uplink("n", "e" * 16, 0, T0, 0, b"")[1])


def test_what_is_no_downlink_does_nothing_and_content_is_done_once() -> None:
    (device,) = devices(3)[2:]
    radio = Radio(device, "e" * 16)
    radio.uplink(T0 + 10_000)
    for data in (b"", b"\x01", b"\x01" + bytes(11), b"\x04" + bytes(12), bytes(13), b"\xff" * 300):
        assert radio.hear(data, T0) is False
    until_s = (T0 // 1000 + 3600).to_bytes(4, "big")
    data = b"\x01" + (1_500).to_bytes(4, "big") + (T0 // 1000).to_bytes(4, "big") + until_s
    assert radio.hear(data, T0 + 4_000_000) is None, "too late"
    assert [radio.hear(data, T0 + 10_000) for _ in range(2)] == [True, True]
    for server in SERVERS.values():
        for payload in (b"", b"[]", b"\xff", b'{"downlinks": [5]}', b'{"data": "?", "fPort": 1}', b"{}"):
            assert server("app").enqueued("v3/app/devices/d/down/push", payload)[1] == ()
