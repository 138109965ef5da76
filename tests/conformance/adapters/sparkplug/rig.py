"""The Sparkplug adapter's counterpart: a real Mosquitto and an edge node of sparkplug-client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.mosquitto import mosquitto
from support.sparkplug_edge import ACCOUNTS, GROUP, HOST, HOST_SECRET, NODE, Edge, need_sparkplug_client

from flexrelay.demo.broker import Mosquitto
from flexrelay_adapters.sparkplug import SparkplugAdapter, make_adapter
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import cleaned
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig, until

DEVICE, NEIGHBOUR = "meter1", "meter2"


def section(port: int, **changes: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "client_id": "host",
        "host_id": HOST,
        "username": HOST,
        "password": HOST_SECRET,
        "groups": [GROUP],
        "registers": {
            "power_w": {"metric": "Meter/Power", "unit": "W"},
            "import_j": {"metric": "Meter/Import", "unit": "Wh"},
        },
        "commands": {
            "set_power": {
                "write": {"power_w": {"metric": "Control/Power", "unit": "W"}},
                "command_id": "Control/Id",
                "expires_at": "Control/Expires",
                "result": "Control/Result",
            }
        },
        "rebirth_interval_s": 0.2,
        "backoff_min_s": 0.05,
        "backoff_max_s": 0.4,
        **changes,
    }


def one(name: str, **fields: Any) -> bytes:
    """A payload of one metric."""
    payload = Payload(timestamp=1_700_000_000_000)
    payload.metrics.add(name=name, **fields)
    return payload.SerializeToString()


class SparkplugRig(Rig):
    credential = f"{GROUP}/{NODE}/{DEVICE}"
    secret = HOST_SECRET
    flood_bytes = 24 * 2**20

    def __init__(self, broker: Mosquitto, edge: Edge, protocol: str) -> None:
        self._broker = broker
        self._edge = edge
        self._protocol = protocol
        self._adapter: SparkplugAdapter | None = None
        self._on_their_way = 0
        """Readings that the edge node has sent to the adapter."""

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, protocol: str) -> AsyncIterator[SparkplugRig]:
        need_sparkplug_client()
        async with (
            mosquitto(folder / "broker", ACCOUNTS) as broker,
            Edge.started(broker.port, folder / "edge.log", devices=(DEVICE, NEIGHBOUR)) as edge,
        ):
            yield cls(broker, edge, protocol)

    def adapter(self, **changes: Any) -> SparkplugAdapter:
        self._on_their_way = 0
        made = section(self._broker.port, protocol=self._protocol, **changes)
        self._adapter = make_adapter("plant", made, Path(), NoNativeCodec())
        return self._adapter

    def bounded_adapter(self) -> SparkplugAdapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18, max_payload_bytes=2**16)

    def adapter_with_wrong_credentials(self) -> SparkplugAdapter:
        return self.adapter(password=HOST_SECRET + "-mistyped")

    async def _known(self) -> None:
        """The host has the device's birth: before, its data would mean nothing."""
        for _ in range(6000):
            adapter = self._adapter
            if adapter is None or self.credential in [each async for each in adapter.discover()]:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the device was not born within a minute")

    async def send(self, number: int) -> None:
        await self._known()
        answer = await self._edge.send(number)
        self._on_their_way += not answer.get("held")

    async def send_at(self, number: int, at_ms: int) -> None:
        await self._known()
        await self._edge.send(number, at=at_ms)

    async def send_raw(self, payload: bytes) -> None:
        await self._known()
        await self._edge.raw(payload)

    async def flood(self, total_bytes: int) -> int:
        await self._known()
        count = total_bytes // 20_000
        for number in range(count):
            await self._edge.send(number, padding=20_000)
        return count

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        good = one("Meter/Power", datatype=10, double_value=99.0)
        return [
            (b"", ""),  # a payload without metrics
            (good[:-3], "not_sparkplug"),
            (b"\xff" * 40, "not_sparkplug"),
            (one("Meter/Power", datatype=10, double_value=math.nan), "not_a_number"),
            (one("Meter/Power", datatype=10, double_value=1e300), "out_of_range"),
            (one("Meter/Power", datatype=12, string_value="12"), "not_a_number"),
            (one("Meter/Power", datatype=10, double_value=1.0, timestamp=2**63), "bad_time"),
            (good + one("Padding", string_value="x" * 70_000), "oversized"),
        ]

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        adapter = self._adapter
        if adapter is not None:  # QoS 0: what is on its way is the transport's
            await until(lambda: adapter.stats.frames >= self._on_their_way, what="what is on its way")
        await asyncio.sleep(0.3)
        await self._broker.stop()
        born = self._edge.count("born")
        try:
            yield
        finally:
            await self._broker.restart()
            if self._adapter is not None and self._adapter.connected:
                await self._edge.until("born", born + 1)

    async def appear(self) -> str:
        return f"{GROUP}/{NODE}/{NEIGHBOUR}"

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        """The specification's properties of a birth, and the serial number that is common beside them."""
        properties = {
            "Properties/Hardware Make": facts.manufacturer,
            "Properties/Hardware Model": facts.model,
            "Properties/FW": facts.firmware,
            "Properties/Serial Number": facts.serial,
        }
        await self._edge.do("introduce", properties=properties)
        return cleaned(facts._replace(battery_permille=None))

    async def behave(self, behaviour: Behaviour) -> None:
        await self._edge.do("behave", behaviour=behaviour)

    def acts(self) -> Sequence[Act]:
        return [("set_power", {"power_w": told["Control/Power"]}) for told in self._edge.acts]

    async def sleep(self) -> None:
        await self._known()
        await self._edge.do("sleep")
        await self._edge.until("closed")

    async def wake(self) -> None:
        await self._edge.do("wake")
