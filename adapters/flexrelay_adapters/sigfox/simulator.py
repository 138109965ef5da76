"""Simulated devices on Sigfox, with the backend before them: its callbacks, and the downlink in the answer to them.

An uplink has 11 bytes, or 12 with a state of charge; a downlink 8. A downlink has no id: the device acts once on the
same content.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from flexrelay_adapters._http_client import DeviceGateway, HttpClient, Reply, Request
from flexrelay_adapters._simulated import live_all
from flexrelay_adapters._simulated_uplink import FIELDS, LENGTH, REGISTERS, uplink
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats
from flexrelay_sdk.vocabulary import LIMIT_POWER, SET_POWER, SWITCH

log = logging.getLogger(__name__)

_SEQUENCE: Final = 4096
_ACKED, _REFUSED = (0, "Acked"), (2, "The device does not do it")
_SOC: Final = "soc_permille"


class SigfoxSimulatorConfig(DeviceGateway):
    """Where the backend's callbacks go."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8445
    path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$")] = "/sigfox"
    state_of_charge: bool = False
    """Whether uplinks carry one: then all devices must have one. One device type of the backend has one layout."""
    asks_every: Annotated[int, Field(ge=1, le=1000)] = 4
    """A device listens for a downlink after every n-th uplink."""


def device_id(seed: str, number: int) -> str:
    """Of device `number`, as the backend shows it."""
    first = int.from_bytes(hashlib.sha256(f"sigfox/{seed}".encode()).digest()[:4], "big")
    return f"{(first + number) % (2**32 - 1) + 1:X}"


def adapter_section(*, state_of_charge: bool = False) -> dict[str, Any]:
    """Payload, mapping and commands of an adapter that understands these devices."""
    charge = {"charge": {"offset": LENGTH, "length": 1}} if state_of_charge else {}
    soc = {_SOC: {"pointer": "/charge", "unit": "%"}} if state_of_charge else {}
    until = {"offset": 4, "length": 4, "scale": 3}
    limit = {name: {"offset": at, "length": 1, "type": "int", "scale": 2}
             for name, at in (("min_power_w", 1), ("max_power_w", 2))}  # fmt: skip
    return {
        "payload": {"fields": {**FIELDS, **charge}, "length": LENGTH + len(charge)},
        "mapping": {"registers": {**REGISTERS, **soc}},
        "commands": {
            SET_POWER: {
                "prefix": "01",
                "fields": {"power_w": {"offset": 1, "length": 3, "type": "int"}, "until_ms": until},
            },
            LIMIT_POWER: {"prefix": "02", "fields": {**limit, "until_ms": until}},
            SWITCH: {"prefix": "03", "fields": {"on": {"offset": 1, "length": 1}, "until_ms": until}},
        },
    }


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "SigfoxSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    config = SigfoxSimulatorConfig.from_section("sigfox", section).placed(folder)
    if config.state_of_charge:
        without = next((device.name for device in devices if _SOC not in device.model.registers()), None)
        if without is not None:
            raise ValueError(f"state_of_charge: {without} has none; simulate the kinds of one layout at a time")
    if plan.interval_s < 1:
        raise ValueError("a Sigfox callback tells whole seconds: let devices measure every second at the most")
    return SigfoxSimulator(config, devices, plan, seed)


class SigfoxDevice:
    """A device's radio: bytes up, bytes down."""

    def __init__(self, simulator: DeviceSimulator, credential: str, *, state_of_charge: bool) -> None:
        self.simulator = simulator
        self.credential = credential
        self._state_of_charge = state_of_charge
        self.seq = -1

    def uplink(self, now_ms: int) -> bytes:
        """Energies in whole Wh, the power in W, the charge in whole %."""
        registers = self.simulator.sample(now_ms).registers
        self.seq = (self.seq + 1) % _SEQUENCE
        charge = bytes([registers[_SOC] // 10]) if self._state_of_charge else b""
        return uplink(registers) + charge

    def downlink(self, data: bytes, now_ms: int) -> bool | None:
        """Act on it (`now_ms`: the device's time, market time); None: the device says nothing."""
        until_ms = int.from_bytes(data[4:8], "big") * 1000
        parameters = {"from_ms": now_ms, "until_ms": max(until_ms, now_ms + 1)}
        kind = data[0] if len(data) == 8 else 0
        if kind == 1:
            name, told = SET_POWER, {"power_w": int.from_bytes(data[1:4], "big", signed=True)}
        elif kind == 2:
            low, high = (int.from_bytes(data[at : at + 1], "big", signed=True) * 100 for at in (1, 2))
            name, told = LIMIT_POWER, {"min_power_w": low, "max_power_w": high}
        elif kind == 3:
            name, told = SWITCH, {"on": data[1]}
        else:
            log.warning("%s: %s is no command", self.simulator.name, data.hex())
            return False
        answer = self.simulator.obey(data.hex(), name, {**told, **parameters}, expired=until_ms <= now_ms)
        return None if answer is None else answer.state == "acked"


class SigfoxSimulator:
    """`ProtocolSimulator`: the backend has a connection for each device."""

    def __init__(
        self, config: SigfoxSimulatorConfig, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
    ) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._devices = [
            SigfoxDevice(device, device_id(seed, number), state_of_charge=config.state_of_charge)
            for number, device in enumerate(devices)
        ]
        self._plan = plan

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the gateway turns the backend away."""
        await live_all(
            (f"device {device.simulator.name}", self._live(number, device))
            for number, device in enumerate(self._devices)
        )

    async def _live(self, number: int, device: SigfoxDevice) -> None:
        config = self._config
        client = HttpClient(config, self.stats)
        count = 0
        try:
            async with aclosing(self._plan.due(number, len(self._devices))) as instants:
                async for instant in instants:
                    data = device.uplink(instant)
                    count += 1
                    await self._call_back(client, device, instant, data, asks=not count % config.asks_every)
        finally:
            client.close()

    async def _call_back(
        self, client: HttpClient, device: SigfoxDevice, at_ms: int, data: bytes, *, asks: bool
    ) -> None:
        """One uplink, again until it is answered; what comes back, if the device listens."""
        time_s = at_ms // 1000
        body = {
            "device": device.credential, "time": time_s, "data": data.hex(), "seqNumber": device.seq, "ack": asks,
        }  # fmt: skip
        self.stats.sent += 1
        reply = await self._post(client, self._config.path, body)
        self.stats.confirmed += 1
        downlink = _downlink(reply, device.credential)
        if not asks or downlink is None:
            return
        done = device.downlink(downlink, at_ms)
        if done is None:
            return
        code, message = _ACKED if done else _REFUSED
        told = {
            "device": device.credential, "time": time_s, "infoCode": code, "infoMessage": message, "downlinkAck": done,
        }  # fmt: skip
        await self._post(client, f"{self._config.path}/acknowledge", told)
        self.stats.commands += 1

    async def _post(self, client: HttpClient, path: str, body: Mapping[str, Any]) -> Reply:
        headers = {"content-type": "application/json"}
        data = json.dumps(body).encode()
        return await client.insist(Request("POST", path, data, headers))


def _downlink(reply: Reply, device: str) -> bytes | None:
    if reply.status != 200 or not reply.body:
        return None
    try:
        return bytes.fromhex(json.loads(reply.body)[device]["downlinkData"])
    except (ValueError, TypeError, KeyError):
        log.warning("%s: the answer holds no downlink", device)
        return None
