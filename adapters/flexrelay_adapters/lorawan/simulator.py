"""Simulated LoRaWAN devices of class A with the network server before them: ChirpStack v4 or The Things Stack, on MQTT.

A device hears one downlink after each uplink, and confirms it at once with an uplink that carries nothing.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import aiomqtt
from pydantic import Field

from flexrelay_adapters._simulated_uplink import FIELDS, LENGTH, REGISTERS, uplink
from flexrelay_adapters.lorawan.standins import SERVERS, Downlink, NetworkServer
from flexrelay_adapters.mqtt.devices import DeviceBroker, check_cancelled
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats
from flexrelay_sdk.vocabulary import LIMIT_POWER, SET_POWER, SWITCH

log = logging.getLogger(__name__)

_PORT, _PORT_WITH_CHARGE, _COMMANDS = 2, 3, 10
_QUEUE: Final = 16
_SOC: Final = "soc_permille"


class LorawanSimulatorConfig(DeviceBroker):
    """The broker on which the network server writes, and as which one."""

    client_id: Annotated[str, Field(min_length=1, max_length=128)] = "simulated-network-server"
    server: Literal["chirpstack", "things_stack"] = "chirpstack"
    application: Annotated[str, Field(pattern=r"^[^/+#\x00]{1,200}$")] = "simulated"
    """ChirpStack: the application's id. The Things Stack: `application@tenant`."""


def eui_of(seed: str, name: str) -> str:
    """A simulated device's EUI."""
    return hashlib.sha256(f"lorawan/{seed}/{name}".encode()).hexdigest()[:16]


def adapter_section() -> dict[str, Any]:
    """Ports and commands of an adapter that understands these devices."""
    charge = {"charge": {"offset": LENGTH, "length": 2}}
    soc = {_SOC: {"pointer": "/charge", "unit": "permille"}}

    def down(prefix: str, *parameters: tuple[str, int]) -> dict[str, Any]:
        at, places = 1, {}
        for name, length in parameters:
            places[name] = {"offset": at, "length": length, "type": "int" if length == 4 else "uint"}
            at += length
        window = {
            name: {"offset": at + 4 * n, "length": 4, "scale": 3} for n, name in enumerate(("from_ms", "until_ms"))
        }
        return {"f_port": _COMMANDS, "prefix": prefix, "fields": {**places, **window}}

    return {
        "ports": [
            {"f_ports": [_PORT], "binary": {"fields": FIELDS, "length": LENGTH}, "registers": REGISTERS},
            {
                "f_ports": [_PORT_WITH_CHARGE],
                "binary": {"fields": {**FIELDS, **charge}, "length": LENGTH + 2},
                "registers": {**REGISTERS, **soc},
            },
        ],
        "commands": {
            SET_POWER: down("01", ("power_w", 4)),
            LIMIT_POWER: down("02", ("min_power_w", 4), ("max_power_w", 4)),
            SWITCH: down("03", ("on", 1)),
        },
    }


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "LorawanSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    config = LorawanSimulatorConfig.from_section("lorawan", section)
    server = SERVERS[config.server](config.application)
    return LorawanSimulator(config, server, [Radio(each, eui_of(seed, each.name)) for each in devices], plan)


class Radio:
    """A device's bytes up and down. `outgoing` are the network server's messages about it that the broker has not
    taken yet, in order."""

    def __init__(self, simulator: DeviceSimulator, eui: str) -> None:
        self.simulator = simulator
        self.eui = eui
        self.f_cnt = -1
        self.downlinks: deque[Downlink] = deque()
        self.outgoing: deque[tuple[str, bytes]] = deque()

    def uplink(self, now_ms: int) -> tuple[int, bytes]:
        """(Port, payload): energies in whole Wh, the power in W, where there is a store its charge in permille."""
        registers = self.simulator.sample(now_ms).registers
        data = uplink(registers)
        self.f_cnt += 1
        if _SOC not in registers:
            return _PORT, data
        return _PORT_WITH_CHARGE, data + registers[_SOC].to_bytes(2, "big")

    def hear(self, data: bytes, now_ms: int) -> bool | None:
        """Act on a downlink (`now_ms`: the device's time), once on the same content; None: it says nothing."""
        told = _told(data)
        if told is None:
            log.warning("%s: %s is no command", self.simulator.name, data[:40].hex())
            return False
        name, parameters = told
        answer = self.simulator.obey(data.hex(), name, parameters, expired=parameters["until_ms"] <= now_ms)
        return None if answer is None else answer.state == "acked"


def _told(data: bytes) -> tuple[str, dict[str, int]] | None:
    def number(at: int, *, signed: bool = True) -> int:
        return int.from_bytes(data[at : at + 4], "big", signed=signed)

    match (data[:1], len(data)):
        case (b"\x01", 13):
            name, parameters = SET_POWER, {"power_w": number(1)}
        case (b"\x02", 17):
            name, parameters = LIMIT_POWER, {"min_power_w": number(1), "max_power_w": number(5)}
        case (b"\x03", 10):
            name, parameters = SWITCH, {"on": data[1]}
        case _:
            return None
    end = len(data)
    window = {"from_ms": number(end - 8, signed=False) * 1000, "until_ms": number(end - 4, signed=False) * 1000}
    return name, {**parameters, **window}


class LorawanSimulator:
    """`ProtocolSimulator`: one connection, the network server's."""

    def __init__(
        self, config: LorawanSimulatorConfig, server: NetworkServer, radios: Sequence[Radio], plan: Plan
    ) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._server = server
        self._radios = tuple(radios)
        self._by_name = {self.credential(number): radio for number, radio in enumerate(radios)}
        self._plan = plan

    def credential(self, number: int) -> str:
        """As the frames of device `number` carry it."""
        return self._server.name_of(self._radios[number].simulator.name, self._radios[number].eui)

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the broker turns the network server away."""
        await self._config.hold(self._config.client_id, self._connected, self.stats)

    async def _connected(self) -> None:
        async with self._config.client(self._config.client_id) as client:
            check_cancelled()
            await client.subscribe(self._server.downlinks, qos=1)
            check_cancelled()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(client), name="downlinks")
                for number, radio in enumerate(self._radios):
                    group.create_task(self._live(number, radio, client), name=f"device {radio.simulator.name}")

    async def _live(self, number: int, radio: Radio, client: aiomqtt.Client) -> None:
        await self._flush(radio, client)
        async with aclosing(self._plan.due(number, len(self._radios))) as instants:
            async for instant in instants:
                if instant <= radio.simulator.measured_at:
                    continue  # sent before the connection was lost
                self._turn(radio, self.credential(number), instant)
                self.stats.sent += 1
                await self._flush(radio, client)
                self.stats.confirmed += 1

    def _turn(self, radio: Radio, name: str, instant: int) -> None:
        """An uplink, and what the device hears and says after it, as messages of the network server."""
        server, out = self._server, radio.outgoing
        port, data = radio.uplink(instant)
        out.append(server.uplink(name, radio.eui, radio.f_cnt, instant, port, data))
        if not radio.downlinks:
            return
        downlink = radio.downlinks.popleft()
        out.append(server.sent(name, downlink))
        done = radio.hear(downlink.data, instant) if downlink.f_port == _COMMANDS else False
        if done:
            radio.f_cnt += 1
            out.append(server.uplink(name, radio.eui, radio.f_cnt, instant, 0, b""))
        if downlink.confirmed and done is not None:
            out.append(server.acknowledged(name, downlink, done))
        if done is not None:
            self.stats.commands += 1

    async def _flush(self, radio: Radio, client: aiomqtt.Client) -> None:
        while radio.outgoing:
            topic, payload = radio.outgoing[0]
            await client.publish(topic, payload, qos=1)
            radio.outgoing.popleft()
            check_cancelled()

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            name, found = self._server.enqueued(str(message.topic), payload)
            radio = self._by_name.get(name)
            if radio is None or not found:
                log.warning("what came on %s is no downlink for a device that is here", message.topic)
                continue
            for downlink in found:
                if any(each.key == downlink.key for each in radio.downlinks):
                    continue  # the network server has it already
                if len(radio.downlinks) >= _QUEUE:
                    log.warning("%s: its queue is full; the oldest downlink goes", name)
                    radio.downlinks.popleft()
                radio.downlinks.append(downlink)
