"""Simulated devices on Modbus TCP: pymodbus servers with the registers of SunSpec devices, a unit a device.

What a client reads is of one sample, however many registers it reads at once.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from flexrelay_adapters.modbus.device import SunSpecDevice
from flexrelay_adapters.modbus.sunspec.layout import BASE
from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats

_EXCEPTIONS: Final = {
    "address": ExcCodes.ILLEGAL_ADDRESS,
    "value": ExcCodes.ILLEGAL_VALUE,
    "deaf": ExcCodes.GATEWAY_NO_RESPONSE,
}


class ModbusSimulatorConfig(AdapterConfig):
    """Where the servers listen: the first `units` devices at `port`, the next ones at the port after it, …"""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 5020
    units: Annotated[int, Field(ge=1, le=247)] = 100


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "ModbusSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    config = ModbusSimulatorConfig.from_section("modbus", section)
    last = config.port + (len(devices) - 1) // config.units
    if last > 65_535:
        raise ValueError(f"port: {len(devices)} devices take the ports up to {last}; begin lower or set more units")
    return ModbusSimulator(config, [SunSpecDevice(each, serial_of(seed, each.name), plan) for each in devices], plan)


def serial_of(seed: str, name: str) -> str:
    """What a simulated device calls itself in model 1."""
    return hashlib.sha256(f"modbus/{seed}/{name}".encode()).hexdigest()[:12].upper()


class ModbusSimulator:
    """`ProtocolSimulator`. `started` is set when all servers listen; `confirmed` counts samples that somebody read."""

    def __init__(self, config: ModbusSimulatorConfig, devices: Sequence[SunSpecDevice], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self.started = asyncio.Event()
        self.devices = tuple(devices)
        self._config = config
        self._plan = plan

    def place(self, number: int) -> tuple[int, int]:
        """(Port, unit) of device `number`."""
        return self._config.port + number // self._config.units, number % self._config.units + 1

    def credential(self, number: int) -> str:
        """As the frames of device `number` carry it."""
        port, unit = self.place(number)
        return f"{self._config.host}:{port}/{unit}"

    def adapter_section(self) -> dict[str, Any]:
        """`devices` of an adapter's configuration for these."""
        return {
            device.simulator.name: {
                "endpoint": f"{self._config.host}:{self.place(number)[0]}",
                "unit": self.place(number)[1],
                "sunspec": device.sunspec,
                "control": device.controllable,
                "serial": device.serial,
            }
            for number, device in enumerate(self.devices)
        }

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when a port cannot be used."""
        servers: list[ModbusTcpServer] = []
        try:
            for first in range(0, len(self.devices), self._config.units):
                servers.append(await self._serve(first))
            self.started.set()
            async with asyncio.TaskGroup() as group:
                for number, device in enumerate(self.devices):
                    group.create_task(self._measure(number, device), name=f"device {device.simulator.name}")
        finally:
            for server in servers:
                await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus has none here

    async def _serve(self, first: int) -> ModbusTcpServer:
        units = []
        for number in range(first, min(first + self._config.units, len(self.devices))):
            device = self.devices[number]
            image = SimData(BASE, values=list(device.layout.registers), datatype=DataType.REGISTERS)
            units.append(SimDevice(id=self.place(number)[1], simdata=[image], action=partial(self._act, device)))
        port = self.place(first)[0]
        server = ModbusTcpServer(units, address=(self._config.host, port))
        try:
            await server.serve_forever(background=True)
        except RuntimeError:
            raise ConnectionError(f"port: {self._config.host}:{port} cannot be used") from None
        return server

    async def _act(
        self,
        device: SunSpecDevice,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: Any,
    ) -> ExcCodes | None:
        """pymodbus asks before every read and write of a unit."""
        if values is None:
            registers[:] = device.layout.registers
            if device.fresh and address > BASE + 2:
                device.fresh = False
                self.stats.confirmed += 1
            return None
        before = device.commands
        refusal = device.write(address, [int(value) for value in values])
        self.stats.commands += device.commands - before
        return None if refusal is None else _EXCEPTIONS[refusal]

    async def _measure(self, number: int, device: SunSpecDevice) -> None:
        async with aclosing(self._plan.due(number, len(self.devices))) as instants:
            async for instant in instants:
                device.measure(instant)
                self.stats.sent += 1
