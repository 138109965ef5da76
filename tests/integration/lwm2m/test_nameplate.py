"""What devices say of themselves, from the device object to `flexrelay device show`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.leshan import leshan, needs_leshan
from support.pilot import answer, flexrelay, found

from flexrelay.app import Level, open_site
from flexrelay.config import load
from flexrelay_adapters.lwm2m import Lwm2mAdapter
from flexrelay_adapters.lwm2m.coap.layer import Timing
from flexrelay_adapters.lwm2m.device import DeviceClient, Tree
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.testkit import RecordingSink, until

from .conftest import Serve

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 60
HOST = "127.0.0.23"


def device(adapter: Lwm2mAdapter, values: dict[tuple[int, ...], object]) -> DeviceClient:
    tree = Tree({(1, 0, 0): 1, (3305, 0, 5800): 1.0, **values})  # type: ignore[dict-item]
    return DeviceClient(("127.0.0.1", adapter.coap_port), "meter", tree, local=HOST, timing=Timing(ack_timeout_s=1.0))


async def test_again_with_each_registration(serve: Serve) -> None:
    async with serve() as adapter:
        client = device(adapter, {(3, 0, 0): "Acme", (3, 0, 3): "1.0"})
        await client.open()
        await client.register()
        told = [(f"udp:{HOST}", DeviceFacts("Acme", firmware="1.0"))]
        await until(lambda: list(adapter.facts()) == told, PATIENCE_S, "the facts")
        client.change({(3, 0, 3): "1.1"})  # it reboots with another firmware
        await client.register()
        told = [(f"udp:{HOST}", DeviceFacts("Acme", firmware="1.1"))]
        await until(lambda: list(adapter.facts()) == told, PATIENCE_S, "the new firmware")
        await client.deregister()
        assert list(adapter.facts()) == told  # the gateway may ask later
        client.close()


async def test_one_that_tells_nothing_is_served_all_the_same(serve: Serve, sink: RecordingSink) -> None:
    async with serve(observe=("/3305/0",)) as adapter:
        client = device(adapter, {(3, 0, 3): "\x00" * 50})
        await client.open()
        await client.register()
        await until(lambda: list(adapter.facts()) == [(f"udp:{HOST}", DeviceFacts())], PATIENCE_S, "an empty nameplate")
        await until(lambda: len(sink.frames) == 1, PATIENCE_S, "the observation")
        assert await client.send([Record((3305, 0, 5800), 5.0)]) == 0x44
        client.close()
    async with serve(nameplate=False) as adapter:
        client = device(adapter, {(3, 0, 3): "1.0"})
        await client.open()
        await client.register()
        await until(lambda: len(client._observed) == 1, PATIENCE_S, "the observation")
        assert list(adapter.facts()) == []
        client.close()


@needs_leshan
async def test_leshan_and_device_show(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    await asyncio.to_thread(set_up, folder)
    async with open_site(folder, load(folder), Level.SERVING) as site:
        gateway = site.gateways["agg"]
        adapter = gateway.adapters["field"]
        assert isinstance(adapter, Lwm2mAdapter)
        await adapter.wait_connected()
        url = f"coap://127.0.0.1:{adapter.coap_port}"
        async with leshan("Device", url=url, name="meter", address=HOST, firmware="3.1.4") as peer:
            await peer.says("registered")
            await until(lambda: len(list(adapter.facts())) == 1, PATIENCE_S, "the facts")
    shown = await asyncio.to_thread(answer, "device", "show", folder, "m1")
    assert (shown["manufacturer"], shown["model"], shown["serial"]) == ("Eclipse", "Leshan", "SN-7")
    assert (shown["firmware"], shown["battery_permille"]) == ("3.1.4", 850)
    for_people = await asyncio.to_thread(flexrelay, "device", "show", folder, "m1")
    assert for_people.exit_code == 0 and "3.1.4" in for_people.output


def set_up(folder: Path) -> None:
    found(folder)
    answer("actor", "add", folder, "--org", "agg", "--label", "owner")
    call = ("device", "add", folder, "--org", "agg", "--controller", "owner", "--name", "m1", "--kind", "meter")
    answer(*call, "--unsigned", "--credential", f"lwm2m:udp:{HOST}")
    file = folder / "flexrelay.toml"
    text = file.read_text()
    where = text.index('org = "agg"')
    end = text.find("[[gateways]]", where)
    section = '\n[gateways.adapters.field]\ntype = "lwm2m"\n[gateways.adapters.field.coap]\nport = 0\n\n'
    file.write_text(text + section if end < 0 else text[:end] + section + text[end:])
