"""Simulated edge nodes of Sparkplug B (aiomqtt): births, data by aliases, rebirths, a will, commands with a result."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiomqtt
from google.protobuf.message import DecodeError

from flexrelay_adapters._simulated import live_all
from flexrelay_adapters.mqtt.devices import DeviceBroker, check_cancelled
from flexrelay_adapters.sparkplug.config import Identifier
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats
from flexrelay_sdk.vocabulary import COMMANDS, REGISTERS, WINDOW

log = logging.getLogger(__name__)

_INT64: Final = 4
_STRING: Final = 12
_BOOLEAN: Final = 11
_PARAMETERS: Final = sorted({*WINDOW, *(name for kind in COMMANDS.values() for name in kind.parameters)})
METRICS: Final = {
    **{f"Meter/{name}": _INT64 for name in sorted(REGISTERS)},
    **{f"Command/{name}": _INT64 for name in _PARAMETERS},
    "Command/expires_at": _INT64,
    "Command/id": _STRING,
    "Command/result": _STRING,
}
"""name → data type; the alias is the place. Registers are in their own units."""
_ALIASES: Final = {name: alias for alias, name in enumerate(METRICS, 1)}
_NAMES: Final = {alias: name for name, alias in _ALIASES.items()}
_REBIRTH: Final = "Node Control/Rebirth"


class SparkplugSimulatorConfig(DeviceBroker):
    """Where the edge nodes send, each under its device's name (`{device}` in `username` and `password`)."""

    group: Identifier = "flexrelay"


def adapter_section() -> dict[str, Any]:
    """Registers and commands of an adapter that understands these nodes."""

    def written(name: str) -> dict[str, str]:
        return {"metric": f"Command/{name}", **({"unit": "W"} if name.endswith("power_w") else {})}

    told = {"command_id": "Command/id", "expires_at": "Command/expires_at", "result": "Command/result"}
    units = {"import_j": "J", "export_j": "J", "power_w": "W"}
    return {
        "registers": {name: {"metric": f"Meter/{name}", "unit": unit} for name, unit in units.items()},
        "commands": {
            name: {"write": {each: written(each) for each in (*kind.parameters, *WINDOW)}, **told}
            for name, kind in COMMANDS.items()
        },
    }


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "SparkplugSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    return SparkplugSimulator(SparkplugSimulatorConfig.from_section("sparkplug", section), devices, plan)


class _Node:
    """An edge node of one device's metrics."""

    def __init__(self, simulator: DeviceSimulator, group: str) -> None:
        self.simulator = simulator
        self._topic = f"spBv1.0/{group}/{{}}/{simulator.name}"
        self._seq = 0
        self._bdseq = -1

    def topic(self, kind: str) -> str:
        return self._topic.format(kind)

    def death(self) -> bytes:
        """The will of the next connection."""
        self._bdseq = (self._bdseq + 1) % 256
        payload = Payload()
        payload.metrics.add(name="bdSeq", datatype=8, long_value=self._bdseq)
        return payload.SerializeToString()

    def birth(self, now_ms: int) -> bytes:
        payload = Payload(timestamp=now_ms, seq=0)
        self._seq = 0
        payload.metrics.add(name="bdSeq", datatype=8, long_value=self._bdseq)
        payload.metrics.add(name=_REBIRTH, datatype=_BOOLEAN, boolean_value=False)
        for name, datatype in METRICS.items():
            payload.metrics.add(name=name, alias=_ALIASES[name], datatype=datatype, is_null=True)
        return payload.SerializeToString()

    def data(self, now_ms: int) -> bytes:
        sample = self.simulator.sample(now_ms)
        payload = self._next(now_ms)
        for name, value in sample.registers.items():
            payload.metrics.add(alias=_ALIASES[f"Meter/{name}"], timestamp=sample.observed_at, long_value=value % 2**64)
        return payload.SerializeToString()

    def answer(self, told: Mapping[str, Any], wall_ms: int) -> bytes | None:
        parameters = {name: told[f"Command/{name}"] for name in _PARAMETERS if f"Command/{name}" in told}
        name = next((kind.name for kind in COMMANDS.values() if set(parameters) == {*kind.parameters, *WINDOW}), "")
        command_id, expires_at = told.get("Command/id"), told.get("Command/expires_at")
        if not name or not isinstance(command_id, str) or not isinstance(expires_at, int):
            return None
        given = self.simulator.obey(command_id, name, parameters, expired=wall_ms >= expires_at)
        if given is None:
            return None
        payload = self._next(wall_ms)
        result = f"{command_id}|{given.state}|{given.detail}"
        payload.metrics.add(alias=_ALIASES["Command/result"], timestamp=wall_ms, string_value=result)
        return payload.SerializeToString()

    def _next(self, now_ms: int) -> Payload:
        self._seq = (self._seq + 1) % 256
        return Payload(timestamp=now_ms, seq=self._seq)


class SparkplugSimulator:
    """`ProtocolSimulator`: one connection a node. Data are QoS 0: `confirmed` counts what was handed to the broker."""

    def __init__(self, config: SparkplugSimulatorConfig, devices: Sequence[DeviceSimulator], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._nodes = [_Node(device, config.group) for device in devices]
        self._plan = plan

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the broker turns a node away."""
        await live_all(
            (
                f"node {node.simulator.name}",
                self._config.hold(node.simulator.name, partial(self._connected, number, node), self.stats),
            )
            for number, node in enumerate(self._nodes)
        )

    async def _connected(self, number: int, node: _Node) -> None:
        will = aiomqtt.Will(node.topic("NDEATH"), node.death(), qos=1)
        async with self._config.client(node.simulator.name, kept=False, will=will) as client:
            check_cancelled()
            await client.subscribe(node.topic("NCMD"), qos=1)
            check_cancelled()
            await client.publish(node.topic("NBIRTH"), node.birth(self._plan.wall()))
            check_cancelled()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._measure(number, node, client))
                group.create_task(self._obey(node, client))

    async def _measure(self, number: int, node: _Node, client: aiomqtt.Client) -> None:
        async with aclosing(self._plan.due(number, len(self._nodes))) as instants:
            async for instant in instants:
                if instant > node.simulator.measured_at:
                    self.stats.sent += 1
                    await client.publish(node.topic("NDATA"), node.data(instant))
                    check_cancelled()
                    self.stats.confirmed += 1

    async def _obey(self, node: _Node, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = Payload()
            try:
                payload.ParseFromString(bytes(message.payload) if isinstance(message.payload, bytes) else b"")
            except (DecodeError, ValueError):
                log.warning("%s: what came is no command", node.simulator.name)
                continue
            if any(metric.name == _REBIRTH and metric.boolean_value for metric in payload.metrics):
                await client.publish(node.topic("NBIRTH"), node.birth(self._plan.wall()))
                check_cancelled()
                continue
            told: dict[str, Any] = {}
            for metric in payload.metrics:
                name = metric.name or _NAMES.get(metric.alias, "")
                text = METRICS.get(name) == _STRING
                number = metric.long_value - 2**64 if metric.long_value >= 2**63 else metric.long_value
                told[name] = metric.string_value if text else number
            answer = node.answer(told, self._plan.wall())
            if answer is not None:
                await client.publish(node.topic("NDATA"), answer)
                check_cancelled()
                self.stats.commands += 1
