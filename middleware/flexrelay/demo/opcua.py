"""Batteries behind one OPC UA server, as a storage park's controller is one: an object a battery with variables and the
method set_power. Their aggregator's gateway is the client; both show certificates (Basic256Sha256)."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any, Final

from flexrelay.demo.broker import free_port
from flexrelay.demo.unsigned import Park, UnsignedDevice
from flexrelay_adapters.opcua.simulator import NAMESPACE, OpcuaSimulator, SimulatorSection, device_sections
from flexrelay_adapters.opcua.trust import TrustList
from flexrelay_sdk import Adapter

TRIES: Final = 5
"""A free port may be taken in the moment before it is bound."""


class OpcuaLine:
    """See `flexrelay.demo.lines.Line`."""

    def __init__(self, park: Park) -> None:
        self._park = park
        self._server: asyncio.Task[None] | None = None

    def credential(self, device: UnsignedDevice) -> str:
        """The server, as its certificate says, and the device there."""
        return f"{NAMESPACE}/{device.name}"

    async def prepare(self) -> str:
        """Certificates on both sides, exchanged as by hand; then the server. Raises OSError."""
        uri = f"urn:flexrelay:demo:{self._park.org}"
        await asyncio.to_thread(self._exchange, uri)
        url = await self._start()
        return f"""
[gateways.adapters.opcua]
type = "opcua"
url = "{url}"
server = "{NAMESPACE}"
application_uri = "{uri}"
pki = "{self._park.org}/pki"
state = "{self._park.org}/opcua"
publishing_ms = 100.0
sampling_ms = 0.0
queue = 2000
timeout_s = 60.0
devices = {_inline(device_sections(self._park.simulators))}
"""

    async def run(self, adapter: Adapter) -> None:
        assert self._server is not None
        await self._server

    async def close(self) -> None:
        if self._server is not None:
            self._server.cancel()
            await asyncio.gather(self._server, return_exceptions=True)

    @property
    def _pki(self) -> Path:
        return self._park.folder / f"opcua-server-{self._park.org}"

    def _exchange(self, uri: str) -> None:
        host = socket.gethostname()
        own = TrustList(self._pki).make_own(NAMESPACE, host)
        gateway = TrustList(self._park.folder / self._park.org / "pki")
        gateway.make_own(uri, host)
        gateway.add(own.certificate.read_bytes())

    async def _start(self) -> str:
        for attempt in range(1, TRIES + 1):
            url = f"opc.tcp://127.0.0.1:{free_port()}/batteries"
            simulator = OpcuaSimulator(SimulatorSection(url=url, pki=self._pki), self._park.simulators, self._park.plan)
            self._server = asyncio.create_task(simulator.run(), name=f"OPC UA server of {self._park.org}'s batteries")
            started = asyncio.create_task(simulator.started.wait())
            await asyncio.wait({self._server, started}, return_when=asyncio.FIRST_COMPLETED)
            started.cancel()
            if simulator.started.is_set():
                return url
            try:
                self._server.result()
            except OSError:
                if attempt == TRIES:
                    raise
        raise AssertionError("unreachable")


def _inline(value: Any) -> str:
    """Tables, lists, strings and numbers as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return json.dumps(value)
