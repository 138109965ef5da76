"""Simulated publishers of OPC UA PubSub on MQTT (aiomqtt): metadata, key frames, delta frames, keep-alives, status.

Nothing is told to a publisher: PubSub has no way back here, as the adapter has none.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import aiomqtt
from pydantic import Field

from flexrelay_adapters._simulated import live_all
from flexrelay_adapters.mqtt.devices import DeviceBroker, check_cancelled
from flexrelay_adapters.opcua_pubsub.config import Prefix
from flexrelay_adapters.opcua_pubsub.publisher import FieldForm, Manner, Message, Publisher
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats

_DISABLED, _OPERATIONAL, _ERROR = 0, 2, 3
"""PubSubState (OPC 10000-14 §6.2.1)."""
_FAREWELL_S: Final = 10.0
_STORES: Final = ("battery", "ev_charger")
"""Kinds of device that tell a state of charge."""


class PubSubSimulatorConfig(DeviceBroker):
    """Where the publishers send, each under its device's name (`{device}` in `username` and `password`)."""

    prefix: Prefix = "opcua/json"
    key_frames: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Every how many messages one is a key frame (KeyFrameCount); between them only what has changed is told."""
    fields: FieldForm = "data_value"


def adapter_section() -> dict[str, Any]:
    """The datasets of an adapter that understands these publishers."""
    units = {"import_j": "J", "export_j": "J", "power_w": "W"}
    meter = {name: {"field": name, "unit": unit} for name, unit in units.items()}
    store = {**meter, "soc_permille": {"field": "soc_permille", "unit": "permille"}}
    return {"datasets": [{"registers": meter}, {"writers": list(_STORES), "registers": store}]}


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "PubSubSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    config = PubSubSimulatorConfig.from_section("opcua_pubsub", section)
    manner = Manner(config.key_frames, config.fields)
    return PubSubSimulator(config, [Publisher(device, seed, manner) for device in devices], plan)


class PubSubSimulator:
    """`ProtocolSimulator`: one connection a publisher. QoS 1; what was not acknowledged goes out again, in order."""

    def __init__(self, config: PubSubSimulatorConfig, publishers: Sequence[Publisher], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._publishers = tuple(publishers)
        self._plan = plan

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the broker turns a publisher away."""
        await live_all(
            (
                f"publisher {each.publisher}",
                self._config.hold(each.publisher, partial(self._connected, number, each, deque()), self.stats),
            )
            for number, each in enumerate(self._publishers)
        )

    async def _connected(self, number: int, publisher: Publisher, unsent: deque[Message]) -> None:
        last = publisher.status(_ERROR, self._plan.now())
        will = aiomqtt.Will(self._topic(last), last.payload, qos=1, retain=True)
        async with self._config.client(publisher.publisher, will=will) as client:
            check_cancelled()
            for announced in (
                publisher.metadata(self._plan.now()),
                publisher.status(_OPERATIONAL, self._plan.now()),
            ):
                await self._publish(client, announced)
            try:
                await self._measure(number, publisher, unsent, client)
            finally:
                with suppress(aiomqtt.MqttError, TimeoutError):  # it was lost: then the broker publishes the will
                    async with asyncio.timeout(_FAREWELL_S):
                        await self._publish(client, publisher.status(_DISABLED, self._plan.now()))

    async def _measure(self, number: int, publisher: Publisher, unsent: deque[Message], client: aiomqtt.Client) -> None:
        async with aclosing(self._plan.due(number, len(self._publishers))) as instants:
            async for instant in instants:
                if instant > publisher.simulator.measured_at:  # else it was measured before the connection was lost
                    unsent.append(publisher.measured(instant))
                while unsent:
                    self.stats.sent += unsent[0].reading
                    await self._publish(client, unsent[0])
                    self.stats.confirmed += unsent.popleft().reading

    async def _publish(self, client: aiomqtt.Client, message: Message) -> None:
        await client.publish(self._topic(message), message.payload, qos=1, retain=message.retain)
        check_cancelled()

    def _topic(self, message: Message) -> str:
        return f"{self._config.prefix}/{message.topic}"
