"""`flexrelay device backfill` and `device clock`, and what a gateway reads by itself after an outage.

The other side: a server on node-opcua that keeps a history, and an LwM2M device with a wrong clock.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.opcua_server import NodeServer, node_server, now_ms
from support.pilot import answer, flexrelay
from support.run_program import rows, running, until
from support.site import publish_today, site

from flexrelay.commissioning import add_actor
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer, Timing
from flexrelay_adapters.lwm2m.device import DeviceClient, NotRegistered, Tree
from flexrelay_adapters.lwm2m.formats import Record

pytestmark = pytest.mark.timeout(600)

PLANT = """
[gateways.adapters.plant]
type = "opcua"
url = "{url}"
security = "None"
publishing_ms = 100.0
sampling_ms = 0.0
backoff_max_s = 0.5
history_s = 0
[gateways.adapters.plant.devices.meter.registers]
power_w = {{ node = "{meter}", unit = "W" }}
"""
ROOF = """
[gateways.adapters.plant.devices.roof.registers]
power_w = {{ node = "{roof}", unit = "W" }}
"""
FIELD = """
[gateways.adapters.field]
type = "lwm2m"
observe = []
[gateways.adapters.field.coap]
port = {coap}
allow = ["127.0.78.0/24"]
"""
LWM2M_HOST = "127.0.78.1"
CLOCK = (3, 0, 13)
HOUR_S = 3600


def configure(folder: Path, text: str) -> None:
    with (folder / "flexrelay.toml").open("a") as file:
        file.write(text)


async def founded(folder: Path) -> None:
    async with site(folder) as opened:
        await add_actor(opened, "dso", "grid")
        await publish_today(opened.gateways["dso"])


async def ask(*arguments: object) -> Any:
    return await asyncio.to_thread(answer, *arguments)


async def measure(server: NodeServer, *values: int) -> None:
    for value in values:
        await server.set("roof.power", value)


async def test_opc_ua_from_discovery_over_an_outage_to_what_was_before(tmp_path: Path) -> None:
    """The adapter's own catching up is off (history_s = 0): what an outage left out is the gateway's to ask for."""
    folder = tmp_path / "data"
    log = folder / "run.log"
    devices = {"meter": ["power"], "roof": ["power"]}
    await founded(folder)
    async with node_server(tmp_path / "server", devices=devices) as server:
        began = now_ms()
        configure(folder, PLANT.format(url=server.url, meter=server.node("meter.power")))
        credential = f"{server.url.removeprefix('opc.tcp://').partition('/')[0]}/roof"
        async with running(folder):
            await measure(server, *range(10, 15))  # nobody has approved it yet
            await until(lambda: credential in rows(folder, "SELECT credential FROM discovered"), "discovery", log)
        assert rows(folder, "SELECT did FROM twin_device") == set(), "a reading of a device that nobody approved"
        listed = await ask("device", "discovered", folder)
        assert f"opcua:{credential}" in [f"{each['protocol']}:{each['credential']}" for each in listed]
        device = ("--org", "dso", "--name", "roof", "--kind", "pv", "--controller", "grid")
        approved = await ask("device", "approve", folder, f"opcua:{credential}", *device)
        assert approved["status"] == "active" and approved["to_configure"] == ["dso.plant"]
        configure(folder, ROOF.format(roof=server.node("roof.power")))

        did = approved["did"]
        query = f"SELECT power_w FROM twin_reading WHERE device = (SELECT id FROM twin_device WHERE did = '{did}')"

        def have(*values: int) -> bool:
            return {str(value) for value in values} <= rows(folder, query)

        async with running(folder, killed=True):
            await until(lambda: have(14), "its newest reading", log)
            await measure(server, *range(20, 25))
            await until(lambda: have(*range(20, 25)), "its readings", log)
        await measure(server, *range(30, 35))  # while the gateway is away
        await server.stop()  # so that nothing waits for it there
        await server.start()
        async with running(folder):
            await until(lambda: have(*range(30, 35)), "what an outage left out", log)
        assert not have(10), "only what an outage left out is read without being asked for"

        asked = ("device", "backfill", folder, "roof", "--from", began, "--until", now_ms(), "--wait", 120)
        (first,) = await ask(*asked)
        assert first["stored"] == 4 and first["duplicates"] >= 11 and first["refused"] == {}, first
        assert first["readings"] == first["stored"] + first["duplicates"]
        (again,) = await ask(*asked)
        assert (again["stored"], again["readings"]) == (0, first["readings"])
        (whole,) = await ask("device", "backfill", folder, "--adapter", "plant", "--from", began, "--wait", 120)
        assert whole["readings"] >= first["readings"] and whole["refused"] == {}
    gone = await asyncio.to_thread(flexrelay, *asked[:-1], 0)
    assert gone.exit_code == 4 and "was not connected to" in gone.stderr


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    asyncio.run(founded(folder))
    device = ("--org", "dso", "--name", "m1", "--kind", "meter", "--controller", "grid")
    answer("device", "add", folder, *device, "--unsigned", "--credential", "opcua:127.0.0.1:1/meter")
    configure(folder, PLANT.format(url="opc.tcp://127.0.0.1:1/none", meter="i=1"))
    for arguments, wanted in (
        (("m1", "--from", 0), "refused as stale"),
        (("m1", "--from", 10**14), "nothing lies from"),
        (("m1", "--from", "yesterday"), "is no time"),
        (("nobody", "--from", 0), "no device 'nobody'"),
        (("--from", 0), "name a device"),
        (("--from", 0, "--adapter", "none"), "no adapter 'none'"),
        (("m1", "--from", 0, "--adapter", "none"), "bound to opcua:127.0.0.1:1/meter"),
    ):
        result = flexrelay("device", "backfill", folder, *arguments)
        assert result.exit_code == 2 and wanted in result.stderr, (arguments, result.stderr)
    result = flexrelay("device", "clock", folder, "m1")
    assert result.exit_code == 2 and "sets clocks" in result.stderr


class Device:
    """An LwM2M device whose clock is off; it stays registered, through restarts of the gateway."""

    def __init__(self, port: int, ahead_s: int) -> None:
        values = {(1, 0, 0): 1, (3305, 0, 5800): 1.0, CLOCK: int(time.time()) + ahead_s}
        self.tree = Tree(values, on_write=self._written)
        self.refuses = False
        self.ahead_s = ahead_s
        impatient = Timing(ack_timeout_s=1.0, max_retransmit=1)
        self.client = DeviceClient(("127.0.0.1", port), "meter", self.tree, local=LWM2M_HOST, timing=impatient)

    def _written(self, values: Any) -> int:
        if self.refuses:
            return codes.METHOD_NOT_ALLOWED
        self.ahead_s = round(values[CLOCK] - time.time())
        return codes.CHANGED

    async def live(self) -> None:
        await self.client.open()
        while True:
            with suppress(NotRegistered, NoAnswer):
                self.tree.values[CLOCK] = int(time.time()) + self.ahead_s
                reading = Record((3305, 0, 5800), 5.0, time.time() + self.ahead_s)
                if not self.client.registered or await self.client.send([reading]) != codes.CHANGED:
                    await self.client.register()
            await asyncio.sleep(0.2)


async def test_a_wrong_clock_is_shown_and_set(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    log = folder / "run.log"
    await founded(folder)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        coap = probe.getsockname()[1]
    configure(folder, FIELD.format(coap=coap))
    device = Device(coap, HOUR_S)
    enrolled = ("--org", "dso", "--name", "m1", "--kind", "meter", "--controller", "grid", "--unsigned")
    await ask("device", "add", folder, *enrolled, "--credential", f"lwm2m:udp:{LWM2M_HOST}")
    letters = folder / "dso" / "journal.db"
    living = asyncio.create_task(device.live())
    try:
        async with running(folder):
            await until(lambda: "future" in rows(folder, "SELECT reason FROM letter", letters), "a refusal", log)
        off = (await ask("device", "show", folder, "m1"))["clock_offset_ms"]
        assert isinstance(off, int) and abs(off - HOUR_S * 1000) < 60_000
        device.refuses = True
        refused = await asyncio.to_thread(flexrelay, "device", "clock", folder, "m1", "--wait", 120, "--json")
        assert refused.exit_code == 1 and device.ahead_s == HOUR_S, refused.output
        device.refuses = False
        told = await ask("device", "clock", folder, "m1", "--wait", 120)
        assert told["set"] and abs(told["offset_ms"] - HOUR_S * 1000) < 60_000 and abs(device.ahead_s) < 60
        async with running(folder):
            await until(lambda: rows(folder, "SELECT did FROM twin_device") != set(), "a reading", log)
        assert (await ask("device", "show", folder, "m1"))["clock_offset_ms"] == "unknown"
        assert not living.done()
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        device.client.close(say=False)
    gone = await asyncio.to_thread(flexrelay, "device", "clock", folder, "m1", "--wait", 0)
    assert gone.exit_code == 4 and "was not reached" in gone.stderr
