"""Simulated devices on LwM2M: each a client with its own socket, sending timestamped readings and obeying object 3310.

What they measure goes out as objects 3421 (meter), 3411 (battery); a load control event becomes the device's command,
with the set point of object 3308 where one is written with it.
"""

import asyncio
import hashlib
import ipaddress
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, field_validator

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer
from flexrelay_adapters.lwm2m.device import DeviceClient, NotRegistered, Security, Tree
from flexrelay_adapters.lwm2m.formats import Path as ResourcePath
from flexrelay_adapters.lwm2m.formats import Record, Value
from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats
from flexrelay_sdk.vocabulary import LIMIT_POWER, SET_POWER

log = logging.getLogger(__name__)

_METER: Final[dict[str, tuple[ResourcePath, int]]] = {
    "power_w": ((3421, 0, 23), 1),
    "import_j": ((3421, 0, 25), 3600),
    "export_j": ((3421, 0, 26), 3600),
    "voltage_mv": ((3421, 0, 1), 1000),
    "current_ma": ((3421, 0, 6), 1000),
    "soc_permille": ((3411, 0, 1), 10),
}
"""Register → resource, and how many of the register's unit make one of the resource's (W, Wh, V, A, %)."""

_EVENT: Final[ResourcePath] = (3310, 0, 5823)
_START: Final[ResourcePath] = (3310, 0, 5824)
_MINUTES: Final[ResourcePath] = (3310, 0, 5825)
_PERCENT: Final[ResourcePath] = (3310, 0, 5827)
_SET_POINT: Final[ResourcePath] = (3308, 0, 5900)


def psk_of(seed: str, name: str) -> bytes:
    """The pre-shared key of a simulated device."""
    return hashlib.sha256(f"lwm2m/{seed}/{name}".encode()).digest()[:16]


class Lwm2mSimulatorConfig(AdapterConfig):
    """Where the devices register. With `psk` they use DTLS: their names as identities, keys by `psk_of`; without it
    the n-th device sends from the n-th address of `network`, which is its identity there."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 5683
    psk: bool = False
    network: str = "127.100.0.0/16"
    rated_w: Annotated[int, Field(ge=1)] = 10_000
    """The power that 100 % of a load control event stands for; the gateway's `commands.rated_w`."""
    lifetime_s: Annotated[int, Field(ge=2, le=30 * 86_400)] = 3_600
    backoff_s: Annotated[float, Field(gt=0, le=60)] = 1.0

    @field_validator("network")
    @classmethod
    def _network(cls, value: str) -> str:
        ipaddress.ip_network(value)
        return value


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "Lwm2mSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    config = Lwm2mSimulatorConfig.from_section("lwm2m", section)
    if not config.psk and ipaddress.ip_network(config.network).num_addresses <= len(devices) + 1:
        raise ValueError(f"network: {config.network} has no address for each of {len(devices)} devices")
    return Lwm2mSimulator(config, devices, plan, seed)


class Lwm2mSimulator:
    """`ProtocolSimulator`."""

    def __init__(self, config: Lwm2mSimulatorConfig, devices: Sequence[DeviceSimulator], plan: Plan, seed: str) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._devices = tuple(devices)
        self._plan = plan
        self._seed = seed

    def credential(self, number: int) -> str:
        """As the frames of device `number` carry it."""
        return self._devices[number].name if self._config.psk else f"udp:{self._local(number)}"

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number, device in enumerate(self._devices):
                group.create_task(self._live(number, device), name=f"device {device.name}")

    async def _live(self, number: int, device: DeviceSimulator) -> None:
        unsent: list[list[Record]] = []
        while True:
            client = self._client(number, device)
            try:
                await client.open()
                await client.register()
                await self._measure(number, device, client, unsent)
            except (NoAnswer, NotRegistered, ConnectionError) as error:
                log.info("%s: %s; again soon", device.name, error)
            finally:
                client.close()
            self.stats.reconnects += 1
            await asyncio.sleep(self._config.backoff_s)

    async def _measure(
        self, number: int, device: DeviceSimulator, client: DeviceClient, unsent: list[list[Record]]
    ) -> None:
        """Readings as they are due; one that was not answered goes out again before the next is measured."""
        updated = time.monotonic()
        async with aclosing(self._plan.due(number, len(self._devices))) as instants:
            async for instant in instants:
                if instant > device.measured_at:
                    if unsent:
                        await self._send(client, unsent)
                    unsent.append(records(device, instant))
                    client.change({record.path: record.value for record in unsent[-1]})
                    await self._send(client, unsent)
                if time.monotonic() - updated > self._config.lifetime_s / 2:
                    await client.update()
                    updated = time.monotonic()

    async def _send(self, client: DeviceClient, unsent: list[list[Record]]) -> None:
        self.stats.sent += 1
        code = await client.send(unsent[0])
        if code == codes.CHANGED:
            self.stats.confirmed += 1
        elif code == codes.BAD_REQUEST:  # never taken, however often it is sent
            log.warning("%s: the server refuses a reading", client.name)
        else:
            raise NotRegistered(code)
        unsent.pop(0)

    def _client(self, number: int, device: DeviceSimulator) -> DeviceClient:
        config = self._config
        values: dict[ResourcePath, Value] = {(1, 0, 0): 1, (3, 0, 0): "flexrelay", (3, 0, 1): device.kind}
        values |= {_EVENT: "", _START: 0, _MINUTES: 0, _PERCENT: 0, _SET_POINT: 0.0}
        values |= {record.path: record.value for record in _records(device.model.registers(), None)}

        def on_write(written: Mapping[ResourcePath, Value]) -> int:
            return self._obey(device, written)

        return DeviceClient(
            (config.host, config.port),
            device.name,
            Tree(values, on_write=on_write),
            security=Security(identity=device.name, key=psk_of(self._seed, device.name)) if config.psk else None,
            local="127.0.0.1" if config.psk else self._local(number),
            lifetime_s=config.lifetime_s,
        )

    def _local(self, number: int) -> str:
        return str(ipaddress.ip_network(self._config.network)[number + 1])

    def _obey(self, device: DeviceSimulator, written: Mapping[ResourcePath, Value]) -> int:
        """A write of object 3310, with 3308 or alone; 0 when the device does not answer."""
        event, start, minutes, percent = (written.get(path) for path in (_EVENT, _START, _MINUTES, _PERCENT))
        if not (isinstance(event, str) and isinstance(start, int) and isinstance(minutes, int)):
            return codes.BAD_REQUEST
        set_point = written.get(_SET_POINT)
        if isinstance(set_point, float | int) and abs(set_point) <= 1e9 and SET_POWER in device.model.commands:
            power_w = round(set_point)
        elif isinstance(percent, int) and 0 <= percent <= 100:
            power_w = percent * self._config.rated_w // 100
        else:
            return codes.BAD_REQUEST
        parameters = {"from_ms": start * 1000, "until_ms": (start + minutes * 60) * 1000}
        if SET_POWER in device.model.commands:
            answer = device.obey(event, SET_POWER, {"power_w": power_w, **parameters})
        else:
            answer = device.obey(event, LIMIT_POWER, {"min_power_w": 0, "max_power_w": power_w, **parameters})
        if answer is None:
            return 0
        self.stats.commands += 1
        return codes.CHANGED if answer.state == "acked" else codes.METHOD_NOT_ALLOWED


def records(device: DeviceSimulator, instant: int) -> list[Record]:
    """What a device measures at an instant (UTC ms)."""
    sample = device.sample(instant)
    return _records(sample.registers, sample.observed_at / 1000)


def _records(registers: Mapping[str, int], time_s: float | None) -> list[Record]:
    found = []
    for name, value in registers.items():
        path, divisor = _METER[name]
        # resources of the type float are floats also when they are whole: Leshan refuses integers there
        amount: Value = (value + 5) // 10 if name == "soc_permille" else value / divisor
        found.append(Record(path, amount, time_s))
    return found
