"""Simulated meters, inverters and batteries: ordinary MQTT clients that sign what they measure and obey commands.

They share nothing with a gateway but the broker: aiomqtt on their side, keys of their own, market time from `now`.
"""

import asyncio
import hashlib
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Literal, Self

import aiomqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from flexrelay.demo.accounts import TOPICS
from flexrelay.demo.plants import BatteryPlant, Plant, SetPoint
from flexrelay_adapters.mqtt.devices import check_cancelled, session
from flexrelay_schemas.canonical import CanonicalError, canonical, parse
from flexrelay_schemas.did import split_did
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.model import Model
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

WINDOW = 8
"""Readings that a device has under way at once."""

Fault = Literal["none", "refuses", "silent", "deaf"]
"""How a battery fails: it answers that it does not, it says it does and does not, or it never answers."""


def device_key(seed: str, name: str) -> Ed25519PrivateKey:
    """The same key for the same seed and name: simulations repeat. Never for a real device."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"flexrelay-simulated/{seed}/{name}".encode()).digest())


@dataclass(frozen=True)
class DeviceIdentity:
    """A device's DID, its signing function and its broker password; the DID's scid is its MQTT user."""

    name: str
    did: str
    sign: Callable[[bytes], bytes]
    password: str
    key_version: int = 1


class CommandDocument(Model):
    """A command as it stands on the wire; `expires_at` is wall-clock UTC ms."""

    v: Literal[1]
    command_id: Annotated[str, Field(min_length=1, max_length=200)]
    name: str
    parameters: dict[str, int]
    expires_at: int


class Device:
    """One simulated device: a plant, an identity and the organisations that receive its readings.

    `start_ms` is the market time of boundary 0. Readings have the boundary as their sequence number.
    """

    def __init__(
        self,
        identity: DeviceIdentity,
        plant: Plant,
        receivers: Sequence[str],
        *,
        start_ms: int,
        isp_seconds: int = 900,
    ) -> None:
        self.identity = identity
        self.plant = plant
        self.receivers = tuple(receivers)
        self.network, self.scid = split_did(identity.did)
        self.start_ms = start_ms
        self.isp_ms = isp_seconds * 1000
        self.sent = 0
        """Boundaries 0 … sent - 1 are confirmed by the broker for every receiver."""
        self.fault: Fault = "none"
        self._answers: dict[str, bytes] = {}
        self._damaged: set[tuple[int, str]] = set()

    def instant(self, boundary: int) -> int:
        return self.start_ms + boundary * self.isp_ms

    def boundaries_until(self, market_ms: int) -> range:
        """Boundaries not sent yet whose instant has come."""
        return range(self.sent, max(self.sent, (market_ms - self.start_ms) // self.isp_ms + 1))

    def damage(self, boundary: int, receiver: str) -> None:
        """Let the reading of this boundary reach one receiver with a wrong signature."""
        self._damaged.add((boundary, receiver))

    def payload(self, boundary: int) -> bytes:
        """The signed reading at a boundary. Raises IndexError beyond the plant's data."""
        reading = Reading(
            did=self.identity.did,
            key_version=self.identity.key_version,
            network=self.network,
            observed_at=self.instant(boundary),
            registers=self.plant.registers(boundary),
            seq=boundary,
        )
        signature = b64u(self.identity.sign(reading.message()))
        return canonical(SignedReading(reading=reading, signature=signature).model_dump())

    def messages(self, boundary: int) -> list[tuple[str, bytes]]:
        """(topic, payload) for every receiver."""
        payload = self.payload(boundary)
        return [
            (
                f"{TOPICS}/{org}/{self.scid}/readings",
                _damaged(payload) if (boundary, org) in self._damaged else payload,
            )
            for org in self.receivers
        ]

    def obey(self, payload: bytes, wall_ms: int) -> bytes | None:
        """Act on a command and return the answer; None when there is none: expired, not a command, or deaf."""
        try:
            command = CommandDocument.model_validate(parse(payload))
        except (CanonicalError, ValidationError) as error:
            log.warning("%s: not a command: %s", self.identity.name, error)
            return None
        if command.command_id in self._answers:
            return self._answers[command.command_id]  # delivered twice: it acts once and answers the same
        if self.fault == "deaf" or wall_ms >= command.expires_at:
            return None
        refusal = self._refusal(command)
        answer: dict[str, object] = {"v": 1, "command_id": command.command_id}
        if refusal:
            answer |= {"state": "failed", "values": {}, "detail": refusal}
        else:
            assert isinstance(self.plant, BatteryPlant)
            self.plant.plan(_set_point(command.parameters))
            values = {"power_w": command.parameters["power_w"], "soc_permille": self.plant.soc_permille}
            answer |= {"state": "acked", "values": values, "detail": ""}
        self._answers[command.command_id] = canonical(answer)
        return self._answers[command.command_id]

    def _refusal(self, command: CommandDocument) -> str:
        plant = self.plant
        if not isinstance(plant, BatteryPlant) or command.name != "set_power":
            return f"unknown command {command.name[:40]}"
        if set(command.parameters) != {"power_w", "from_ms", "until_ms"}:
            return "set_power takes power_w, from_ms and until_ms"
        if self.fault == "refuses":
            return "inverter fault"
        refusal = plant.refusal(_set_point(command.parameters))
        if not refusal:
            plant.silent = self.fault == "silent"
        return refusal


def _set_point(parameters: Mapping[str, int]) -> SetPoint:
    return SetPoint(parameters["power_w"], parameters["from_ms"], parameters["until_ms"])


def _damaged(payload: bytes) -> bytes:
    at = payload.index(b'"signature":"') + 20
    return payload[:at] + (b"A" if payload[at : at + 1] != b"A" else b"B") + payload[at + 1 :]


class Fleet:
    """Many devices in one process, each with its own connection; `async with` connects and disconnects them."""

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        host: str,
        port: int,
        mqtt5: bool = True,
        now: Callable[[], int],
    ) -> None:
        self.devices = tuple(devices)
        self.readings_sent = 0
        """Readings confirmed by the broker, counted once a receiver."""
        self._host, self._port, self._mqtt5 = host, port, mqtt5
        self._now = now
        self._clients: dict[str, aiomqtt.Client] = {}
        self._stack = AsyncExitStack()
        self._advancing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            for device in self.devices:
                client = await self._stack.enter_async_context(self._client(device))
                self._clients[device.scid] = client
                if isinstance(device.plant, BatteryPlant):  # whoever commands it once we are here is heard
                    await client.subscribe(f"{TOPICS}/+/{device.scid}/commands", qos=1)
                    check_cancelled()
            listeners = await self._stack.enter_async_context(asyncio.TaskGroup())
        except BaseException:
            await self._stack.aclose()
            raise
        tasks = [
            listeners.create_task(self._listen(device), name=f"commands of {device.identity.name}")
            for device in self.devices
            if isinstance(device.plant, BatteryPlant)
        ]
        self._stack.callback(lambda: [task.cancel() for task in tasks])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def advance(self, until_ms: int | None = None) -> int:
        """Send every reading whose time has come by market time `until_ms` (default: now), all devices at once.

        Returns how many readings the broker confirmed, counted once a receiver. Raises aiomqtt.MqttError when the
        connection is lost; a reading that was not confirmed is sent again by the next call.
        """
        until = self._now() if until_ms is None else until_ms
        async with self._advancing, asyncio.TaskGroup() as group:
            before = self.readings_sent
            for device in self.devices:
                group.create_task(self._send(device, until))
        return self.readings_sent - before

    async def follow(self, every_s: float = 0.05) -> None:
        """Send readings as market time passes, until cancelled."""
        while True:
            await self.advance()
            await asyncio.sleep(every_s)

    async def _send(self, device: Device, until_ms: int) -> None:
        client = self._clients[device.scid]
        boundaries = device.boundaries_until(until_ms)
        step = max(1, WINDOW // max(1, len(device.receivers)))
        for first in range(boundaries.start, boundaries.stop, step):
            span = range(first, min(first + step, boundaries.stop))
            messages = [message for boundary in span for message in device.messages(boundary)]
            await asyncio.gather(*(client.publish(topic, payload, qos=1) for topic, payload in messages))
            device.sent = span.stop
            self.readings_sent += len(messages)

    async def _listen(self, device: Device) -> None:
        client = self._clients[device.scid]
        async for message in client.messages:
            if not isinstance(message.payload, bytes | bytearray):
                continue
            answer = device.obey(bytes(message.payload), wall_ms())
            if answer is not None:
                await client.publish(str(message.topic).removesuffix("commands") + "results", answer, qos=1)
                check_cancelled()

    def _client(self, device: Device) -> aiomqtt.Client:
        return aiomqtt.Client(
            self._host,
            self._port,
            identifier=device.scid,
            username=device.scid,
            password=device.identity.password,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            **session("5" if self._mqtt5 else "3.1.1"),
        )
