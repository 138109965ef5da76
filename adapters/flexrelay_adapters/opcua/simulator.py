"""Simulated devices on OPC UA: one server, an object a device with its registers as variables and its commands as
methods. `flexrelay simulate --protocol opcua`, the demo and the tests run it.

Variables are Int64 in the registers' own units, with the device's instant as source time. Every method takes
(command_id, …parameters, from_ms, until_ms, expires_at) and answers Good, or Bad with the reason in the server's log.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from asyncua import ua as _ua
from asyncua.server.server import Server as _Server
from pydantic import Field, ValidationError

from flexrelay_adapters.opcua.trust import TrustList
from flexrelay_schemas.reading import REGISTERS
from flexrelay_sdk import Section
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats
from flexrelay_sdk.vocabulary import COMMANDS, WINDOW

log = logging.getLogger(__name__)

ua: Any = _ua
Server: Any = _Server
"""As they are at run time: the library does not declare all of it for type checkers."""

NAMESPACE: Final = "urn:flexrelay:simulation"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SimulatorSection(Section):
    """`pki`: with it the server is secured (Basic256Sha256) by the certificate in its `own` folder and trusts every
    client; without, it is open and must listen on the loopback interface only."""

    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^\s@]+$")] = "opc.tcp://127.0.0.1:4840/flexrelay"
    pki: Path | None = None
    history: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Values that the server keeps of each variable."""


def registers_of(device: DeviceSimulator) -> list[str]:
    """The registers that a device shows, by name."""
    return sorted(name for name in device.model.registers() if name in REGISTERS)


def device_sections(devices: Sequence[DeviceSimulator]) -> dict[str, Any]:
    """`devices` of an adapter's configuration for simulated ones."""
    units = {"j": "J", "w": "W", "var": "var", "mv": "mV", "ma": "mA", "permille": "permille"}
    sections: dict[str, Any] = {}
    for device in devices:
        node = f"nsu={NAMESPACE};s={device.name}"
        registers = {
            name: {"node": f"{node}.{name}", "unit": units.get(name.rsplit("_", 1)[-1], name.rsplit("_", 1)[-1])}
            for name in registers_of(device)
        }
        commands = {
            name: {
                "object": node,
                "method": f"{node}.{name}",
                "arguments": [
                    {"parameter": "command_id"},
                    *({"parameter": each, "type": "Int64"} for each in (*COMMANDS[name].parameters, *WINDOW)),
                    {"parameter": "expires_at"},
                ],
            }
            for name in sorted(device.model.commands)
        }
        sections[device.name] = {"registers": registers, "commands": commands}
    return sections


class OpcuaSimulator:
    """See `flexrelay_sdk.simulation.ProtocolSimulator`."""

    def __init__(self, section: SimulatorSection, devices: Sequence[DeviceSimulator], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self.started = asyncio.Event()
        self._section = section
        self._devices = devices
        self._plan = plan

    async def run(self) -> None:
        server = Server()
        await server.init()
        await server.set_application_uri(NAMESPACE)
        server.set_endpoint(self._section.url)
        server.set_server_name("flexrelay simulation")
        if self._section.pki is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            own = TrustList(self._section.pki).own()
            await server.load_certificate(str(own.certificate), "der")
            await server.load_private_key(str(own.key), format="pem")
            server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        index = await server.register_namespace(NAMESPACE)
        variables = [await self._add(server, index, device) for device in self._devices]
        async with server:
            self.started.set()
            async with asyncio.TaskGroup() as group:
                for number, device in enumerate(self._devices):
                    group.create_task(self._measure(server, number, device, variables[number]), name=device.name)

    async def _add(self, server: Any, index: int, device: DeviceSimulator) -> dict[str, Any]:
        parent = await server.nodes.objects.add_object(ua.NodeId(device.name, index), device.name)
        variables = {}
        waiting = ua.StatusCode(ua.StatusCodes.BadWaitingForInitialData)
        for register in registers_of(device):
            value = ua.DataValue(ua.Variant(0, ua.VariantType.Int64), StatusCode=waiting)
            node = ua.NodeId(f"{device.name}.{register}", index)
            variables[register] = await parent.add_variable(node, register, 0, ua.VariantType.Int64)
            await variables[register].write_value(value)
            if self._section.history:
                await server.historize_node_data_change(variables[register], period=None, count=self._section.history)
        for name in sorted(device.model.commands):
            parameters = (*COMMANDS[name].parameters, *WINDOW)
            kinds = [ua.VariantType.String, *[ua.VariantType.Int64 for _ in parameters], ua.VariantType.DateTime]
            await parent.add_method(
                ua.NodeId(f"{device.name}.{name}", index), name, self._method(device, name, parameters), kinds, []
            )
        return variables

    def _method(self, device: DeviceSimulator, name: str, parameters: Sequence[str]) -> Any:
        async def call(parent: Any, command_id: Any, *rest: Any) -> Any:
            values = {parameter: int(given.Value) for parameter, given in zip(parameters, rest, strict=False)}
            until = rest[-1].Value
            until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
            expired = (until - _EPOCH) / timedelta(milliseconds=1) <= time.time_ns() / 1e6
            answer = device.obey(str(command_id.Value), name, values, expired=expired)
            if answer is None:  # deaf, or too late; the server answers for it, as a real one does for its field bus
                return ua.StatusCode(ua.StatusCodes.BadNoCommunication)
            self.stats.commands += 1
            if answer.state == "failed":
                log.info("%s refuses %s: %s", device.name, name, answer.detail)
                return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
            return []

        return call

    async def _measure(self, server: Any, number: int, device: DeviceSimulator, variables: dict[str, Any]) -> None:
        async for at in self._plan.due(number, len(self._devices)):
            sample = device.sample(at)
            time_of = _EPOCH + timedelta(milliseconds=sample.observed_at)
            for register, variable in variables.items():
                variant = ua.Variant(sample.registers[register], ua.VariantType.Int64)
                value = ua.DataValue(variant, SourceTimestamp=time_of, ServerTimestamp=datetime.now(UTC))
                await server.write_attribute_value(variable.nodeid, value)
            self.stats.sent += 1


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> OpcuaSimulator:
    """See `flexrelay_sdk.simulation.SimulatorFactory`. `seed` is not used: the server's key lies in `pki`."""
    try:
        wanted = SimulatorSection.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if wanted.pki is not None:
        wanted = wanted.model_copy(update={"pki": folder / wanted.pki})
    return OpcuaSimulator(wanted, devices, plan)
