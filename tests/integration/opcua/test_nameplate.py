"""What a node-opcua server says of its devices: nameplates at their objects, or its own BuildInfo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.opcua_server import NAMESPACE, node_server, section

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import NO_FACTS
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0

PLATE = {"Manufacturer": "Acme", "Model": "M1", "SerialNumber": "77", "SoftwareRevision": "1.0", "RevisionCounter": "3"}
TOLD = DeviceFacts("Acme", "M1", "77", "1.0")


def devices(*names: str) -> dict[str, Any]:
    return {
        name: {"registers": {"power_w": {"node": f"nsu={NAMESPACE};s={name}.power", "unit": "W"}}} for name in names
    }


def adapter(values: dict[str, Any]) -> OpcuaAdapter:
    return OpcuaAdapter(OpcuaConfig.from_section("plant", values))


async def test_nameplates_of_several_devices(tmp_path: Path) -> None:
    names = ("meter", "inverter", "plain")
    options: dict[str, Any] = {
        "devices": {name: ["power"] for name in names},
        "nameplates": {"meter": {"properties": PLATE}, "inverter": {"group": True, "properties": PLATE}},
    }
    async with node_server(tmp_path / "server", **options) as server:
        values = section(server, tmp_path)
        made, sink = adapter({**values, "devices": devices(*names)}), RecordingSink()
        async with running(made, sink, connect_s=PATIENCE_S):
            await until(lambda: len(made.facts()) == 3, PATIENCE_S, "the facts")
        told = dict(made.facts())
        plates = [told[made.config.credential(name)] for name in names]
        assert plates == [TOLD, TOLD, NO_FACTS]  # the server's own word is not the devices'


async def test_the_only_device_is_what_the_server_is(tmp_path: Path) -> None:
    async with node_server(tmp_path / "server") as server:
        made, sink = adapter(section(server, tmp_path, keys=("power",))), RecordingSink()
        async with running(made, sink, connect_s=PATIENCE_S):
            await until(lambda: len(made.facts()) == 1, PATIENCE_S, "the facts")
            ((_, facts),) = made.facts()
            assert facts == DeviceFacts("Builders", "test", firmware="9.8.7")
            await server.set("meter.power", 5)
            await until(lambda: sink.values() == [5], PATIENCE_S, "a reading beside it")
