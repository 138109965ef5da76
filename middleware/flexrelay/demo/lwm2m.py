"""Batteries that are LwM2M clients: registered with their aggregator's server over DTLS with a key each, they send what
they measure (objects 3421, 3411) and take set points (3310 with 3308)."""

import os
from pathlib import Path

from flexrelay.demo.unsigned import Park, UnsignedDevice
from flexrelay_adapters.lwm2m import Lwm2mAdapter
from flexrelay_adapters.lwm2m.simulator import make_simulator, psk_of
from flexrelay_sdk import Adapter


class Lwm2mLine:
    """See `flexrelay.demo.lines.Line`."""

    def __init__(self, park: Park) -> None:
        self._park = park

    def credential(self, device: UnsignedDevice) -> str:
        """The identity of its key."""
        return device.name

    async def prepare(self) -> str:
        """The devices' keys in a file that only its owner reads. The server takes a free port at every start."""
        park = self._park
        keys = Path("secrets") / f"lwm2m-{park.org}.psk"
        lines = [f"{device.name}:{psk_of(park.seed, device.name).hex()}\n" for device in park.devices]
        with os.fdopen(os.open(park.folder / keys, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(lines)
        rated_w = max(device.plant.rated_w for device in park.devices)
        return f"""
[gateways.adapters.lwm2m]
type = "lwm2m"
state = "{park.org}/lwm2m.db"
observe = []
commands = {{ via = "set_point", rated_w = {rated_w} }}

[gateways.adapters.lwm2m.coaps]
host = "127.0.0.1"
port = 0
psk_file = "{keys}"
"""

    async def run(self, adapter: Adapter) -> None:
        assert isinstance(adapter, Lwm2mAdapter)
        section, park = {"port": adapter.coaps_port, "psk": True}, self._park
        await make_simulator(section, park.folder, park.simulators, park.plan, park.seed).run()

    async def close(self) -> None:
        pass
