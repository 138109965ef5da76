"""Simulated devices on MQTT: each an ordinary client of the broker (aiomqtt), plain JSON or signed readings.

They share nothing with the adapter but the topics, so that adapter and devices do not agree on a common mistake.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import aiomqtt
from pydantic import Field, model_validator

from flexrelay_adapters._simulated import json_devices, live_all
from flexrelay_adapters.mqtt.devices import DeviceBroker, check_cancelled
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk.config import below
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats


class MqttSimulatorConfig(DeviceBroker):
    """Where the devices send. `{device}` in `username`, topics and `password` is the device's name (with `identities`:
    the last part of its DID)."""

    readings: Annotated[tuple[str, ...], Field(min_length=1)] = ("flexrelay/v1/sim/{device}/readings",)
    """A reading goes to each of these topics, one a receiver."""
    commands: str | None = "flexrelay/v1/sim/{device}/commands"
    results: str | None = "flexrelay/v1/sim/{device}/results"
    identities: Path | None = None
    """Folder with <name>.pem and <name>.json as `flexrelay device add` makes them: readings are signed. Without it
    they are plain JSON: `observed_at` (UTC ms), `seq` and the registers by name."""

    @model_validator(mode="after")
    def _topics(self) -> Self:
        for topic in (*self.readings, self.commands, self.results):
            if topic is not None and "+" in TopicPattern(topic).pattern:
                raise ValueError(f"topic {topic!r} must not hold +: it names one device")
        if (self.commands is None) != (self.results is None):
            raise ValueError("commands and results belong together: give both topics or none")
        return self


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "MqttSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    config = MqttSimulatorConfig.from_section("mqtt", section)
    return MqttSimulator(config, json_devices(devices, below(folder, config.identities)), plan)


class Speaking(Protocol):
    """A device under its transport's name, in the words of one protocol upon MQTT. `unsent` is a reading whose
    acknowledgement did not come."""

    simulator: DeviceSimulator
    credential: str
    unsent: bytes | None

    def payload(self, now_ms: int) -> bytes: ...

    def answer(self, payload: bytes, wall_ms: int) -> bytes | None: ...


class MqttSimulator:
    """`ProtocolSimulator`: one connection a device."""

    def __init__(self, config: MqttSimulatorConfig, devices: Sequence[Speaking], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._devices = tuple(devices)
        self._plan = plan

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the broker turns a device away."""
        await live_all(
            (
                f"device {device.simulator.name}",
                self._config.hold(device.credential, partial(self._connected, number, device), self.stats),
            )
            for number, device in enumerate(self._devices)
        )

    async def _connected(self, number: int, device: Speaking) -> None:
        async with self._config.client(device.credential) as client:
            check_cancelled()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._measure(number, device, client))
                if self._config.commands is not None:
                    group.create_task(self._obey(device, client))

    async def _measure(self, number: int, device: Speaking, client: aiomqtt.Client) -> None:
        topics = [TopicPattern(topic).topic_for(device.credential) for topic in self._config.readings]
        async with aclosing(self._plan.due(number, len(self._devices))) as instants:
            async for instant in instants:
                if instant <= device.simulator.measured_at:
                    continue  # sent before the connection was lost
                if device.unsent is not None:
                    await self._publish(client, topics, device)
                device.unsent = device.payload(instant)
                await self._publish(client, topics, device)

    async def _publish(self, client: aiomqtt.Client, topics: Sequence[str], device: Speaking) -> None:
        payload = device.unsent
        for topic in topics:
            self.stats.sent += 1
            await client.publish(topic, payload, qos=1)
            check_cancelled()
            self.stats.confirmed += 1
        device.unsent = None

    async def _obey(self, device: Speaking, client: aiomqtt.Client) -> None:
        assert self._config.commands is not None and self._config.results is not None
        results = TopicPattern(self._config.results).topic_for(device.credential)
        await client.subscribe(TopicPattern(self._config.commands).topic_for(device.credential), qos=1)
        check_cancelled()
        async for message in client.messages:
            if not isinstance(message.payload, bytes | bytearray):
                continue
            answer = device.answer(bytes(message.payload), self._plan.wall())
            if answer is not None:
                await client.publish(results, answer, qos=1)
                check_cancelled()
                self.stats.commands += 1
