"""From a device that nobody knows to its readings in the journal: `flexrelay run`, `device discovered`, `approve`.

The devices: an edge node of sparkplug-client on Mosquitto, an LwM2M device, SunSpec devices on pymodbus.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.modbus_server import ModbusServer
from support.mosquitto import mosquitto
from support.pilot import answer
from support.run_program import rows, running, until
from support.site import publish_today, site
from support.sparkplug_edge import ACCOUNTS, GROUP, HOST, HOST_SECRET, NODE, Edge, need_sparkplug_client
from support.sunspec import inverter, meter

from flexrelay.commissioning import add_actor
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer, Timing
from flexrelay_adapters.lwm2m.device import DeviceClient, NotRegistered, Tree
from flexrelay_adapters.lwm2m.formats import Record

pytestmark = [pytest.mark.timeout(600), pytest.mark.mosquitto]

LWM2M_HOST = "127.0.79.1"
IMPATIENT = Timing(ack_timeout_s=1.0, max_retransmit=1)
"""So that it finds the gateway soon after a restart."""
ADAPTERS = """
[gateways.adapters.plant]
type = "sparkplug"
host = "127.0.0.1"
port = {broker}
client_id = "host"
host_id = "{host}"
username = "{host}"
password_file = "secrets/broker"
groups = ["{group}"]
[gateways.adapters.plant.registers]
power_w = {{ metric = "Meter/Power", unit = "W" }}

[gateways.adapters.field]
type = "lwm2m"
observe = []
[gateways.adapters.field.coap]
port = {coap}
allow = ["127.0.79.0/24"]

[gateways.adapters.roof]
type = "modbus"
interval_s = 0.5
timeout_s = 5.0
scan = [{{ endpoint = "{modbus}", units = [1, 2] }}]
[gateways.adapters.roof.devices.inverter]
endpoint = "{modbus}"
sunspec = "inverter"
"""
APPROVED_METER = """
[gateways.adapters.roof.devices.meter]
endpoint = "{modbus}"
unit = 2
sunspec = "meter"
"""


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def live(device: DeviceClient, stop: asyncio.Event) -> None:
    """Stays registered and sends its power, through restarts of the gateway."""
    number = 0
    await device.open()
    while not stop.is_set():
        number += 1
        with suppress(NotRegistered, NoAnswer):
            if not device.registered or await device.send([reading(number)]) != codes.CHANGED:
                await device.register()
        await asyncio.sleep(0.2)


def reading(number: int) -> Record:
    return Record((3305, 0, 5800), float(number), time.time())


async def measure(edge: Edge, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        with suppress(AssertionError):
            await edge.send(number)
        await asyncio.sleep(0.2)


async def test_from_discovery_to_readings(tmp_path: Path) -> None:
    need_sparkplug_client()
    folder, coap = tmp_path / "data", free_udp_port()
    log = folder / "run.log"
    async with site(folder) as opened:
        await add_actor(opened, "dso", "grid")
        await publish_today(opened.gateways["dso"])
    stop = asyncio.Event()
    async with (
        mosquitto(tmp_path / "broker", ACCOUNTS) as broker,
        Edge.started(broker.port, tmp_path / "edge.log") as edge,
        ModbusServer({1: [inverter()], 2: [meter()]}) as modbus,
        asyncio.TaskGroup() as group,
    ):
        (folder / "secrets" / "broker").write_text(HOST_SECRET)
        values: dict[str, Any] = {"broker": broker.port, "host": HOST, "group": GROUP, "coap": coap}
        with (folder / "flexrelay.toml").open("a") as file:
            file.write(ADAPTERS.format(**values, modbus=modbus.endpoint))
        tree = Tree({(1, 0, 0): 1, (3305, 0, 5800): 1.0})
        device = DeviceClient(("127.0.0.1", coap), "meter", tree, local=LWM2M_HOST, timing=IMPATIENT)
        found = {
            f"sparkplug:{GROUP}/{NODE}/meter1": "s1",
            f"lwm2m:udp:{LWM2M_HOST}": "l1",
            f"modbus:{modbus.endpoint}/2": "m1",
        }
        try:
            group.create_task(live(device, stop))
            group.create_task(measure(edge, stop))
            async with running(folder):
                wanted = {credential.partition(":")[2] for credential in found}
                await until(lambda: wanted <= rows(folder, "SELECT credential FROM discovered"), "the discovery", log)
            assert rows(folder, "SELECT did FROM twin_device") == set(), "a reading of a device that nobody approved"
            listed = await asyncio.to_thread(answer, "device", "discovered", folder)
            assert found.keys() <= {f"{each['protocol']}:{each['credential']}" for each in listed}
            dids: dict[str, str] = {}
            for credential, name in found.items():
                call = ("device", "approve", folder, credential, "--org", "dso", "--name", name, "--kind", "meter")
                done = await asyncio.to_thread(answer, *call, "--controller", "grid")
                dids[name] = done["did"]
                assert done["status"] == "active" and done["did"].startswith("did:flexrelay:")
                assert done["to_configure"] == (["dso.roof"] if name == "m1" else [])
            left = await asyncio.to_thread(answer, "device", "discovered", folder)
            assert not found.keys() & {f"{each['protocol']}:{each['credential']}" for each in left}
            with (folder / "flexrelay.toml").open("a") as file:
                file.write(APPROVED_METER.format(modbus=modbus.endpoint))
            async with running(folder):
                await until(
                    lambda: set(dids.values()) <= rows(folder, "SELECT did FROM twin_device"), "all readings", log
                )
            for name, did in dids.items():
                shown = await asyncio.to_thread(answer, "device", "show", folder, name)
                assert shown["did"] == did and shown["last_seen"], shown
        finally:
            stop.set()
            device.close(say=False)
