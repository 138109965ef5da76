"""The rig of the adapter contract: a pymodbus server in a process of its own, a device that keeps its readings until
they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from support.modbus_server import ModbusServer
from support.sunspec import inverter

from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import cleaned
from flexrelay_sdk.port import Adapter
from flexrelay_sdk.testkit import Act, Behaviour, Rig

POWER, COMMAND, SERIAL = 100, 300, 400
WIDTH = 120
NEIGHBOUR = 7
"""A SunSpec device behind the same endpoint, which is in no configuration."""


def text(value: str, size: int) -> list[int]:
    data = value.encode().ljust(2 * size, b"\0")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, 2 * size, 2)]


class PymodbusRig(Rig):
    """Reading n is the s32 at POWER; the register after it is its scale factor."""

    memory_bound_bytes = 2**19
    flood_bytes = 2**20

    def __init__(self) -> None:
        image = [(POWER, [0] * WIDTH), (COMMAND, [0, 0]), (SERIAL, text("SN-1", 8))]
        self.server = ModbusServer({1: image, NEIGHBOUR: [inverter()]}, queue_at=POWER, write_at=COMMAND)
        self.credential = f"{self.server.endpoint}/1"
        self._timeout_s = 60.0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[PymodbusRig]:
        rig = cls()
        try:
            await rig.server.start()
            yield rig
        finally:
            await rig.server.stop()

    def section(self, serial: str = "SN-1") -> dict[str, Any]:
        power = {"address": POWER, "type": "s32", "unit": "W", "scale_at": POWER + 2, "absent": [-0x8000_0000]}
        last = {"address": POWER + WIDTH - 1, "type": "u16", "unit": "mV", "required": False, "absent": [0]}
        write = {"address": COMMAND, "type": "s32", "parameter": "power_w", "unit": "W"}
        return {
            "interval_s": 0.005,
            "timeout_s": self._timeout_s,
            "max_gap": 124,
            "confirm_s": 1.0,
            "retry_refused_s": 0.2,
            "backoff_max_s": 0.5,
            "scan": [{"endpoint": self.server.endpoint, "units": [1, NEIGHBOUR, 9]}],
            "devices": {
                "roof": {
                    "endpoint": self.server.endpoint,
                    "registers": {"power_w": power, "voltage_mv": last},
                    "serial": serial,
                    "serial_at": {"address": SERIAL, "count": 8},
                    "commands": {"set_power": [write]},
                }
            },
        }

    def adapter(self) -> Adapter:
        return ModbusAdapter(ModbusConfig.from_section("roofs", self.section()))

    def adapter_with_wrong_credentials(self) -> Adapter:
        return ModbusAdapter(ModbusConfig.from_section("roofs", self.section("SN-2")))

    async def send(self, number: int) -> None:
        await self.server.tell({"queue": [number]})

    async def repeat(self, number: int) -> None:
        """A device whose registers have not changed."""
        await self.send(number)

    async def flood(self, total_bytes: int) -> int:
        count = total_bytes // (2 * WIDTH)
        await self.server.tell({"flood": count})
        return count

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        self._timeout_s = 1.0  # some of them are no answer; elsewhere a device that stands still has its time
        return [
            (b"absent", "not_implemented"),
            (b"scale 99", "bad_scale"),
            (b"exception 4", "modbus_exception"),
            (b"exception 2", "modbus_exception"),
            (b"exception 6", ""),
            (b"empty", ""),
            (b"torn", ""),
            (b"short", ""),
            (b"short count", ""),
            (b"oversized", ""),
            (b"not modbus", ""),
            (b"other transaction", ""),
            (b"no transaction", ""),
            (b"other unit", ""),
            (b"other function", ""),
        ]

    async def send_raw(self, payload: bytes) -> None:
        await self.server.tell({"queue": [payload.decode()]})

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        waiting = await self.server.tell({"pause": True})
        await asyncio.sleep(0.3)  # what was handed over arrives
        await self.server.stop()
        yield
        await self.server.start()
        await self.server.tell({"queue": waiting})

    async def appear(self) -> str:
        return f"{self.server.endpoint}/{NEIGHBOUR}"

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        """Its serial number alone, where one is configured to be read."""
        await self.server.tell({"set": [1, SERIAL, text(facts.serial, 8)]})
        return cleaned(DeviceFacts(serial=facts.serial))

    async def behave(self, behaviour: Behaviour) -> None:
        await self.server.tell({"behave": behaviour})

    def acts(self) -> Sequence[Act]:
        """The same registers written again are what the device does already."""
        return [("set_power", {"power_w": act}) for act, _ in itertools.groupby(self.server.acts)]

    def command(self) -> tuple[str, Mapping[str, int]]:
        return "set_power", {"power_w": -1200, "from_ms": 1_700_000_000_000, "until_ms": 1_700_000_900_000}
