"""The adapter: polls of all endpoints → frames → sink; commands as writes; discovery of SunSpec devices."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from flexrelay_adapters.modbus._client import Link
from flexrelay_adapters.modbus.codec import ModbusCodec
from flexrelay_adapters.modbus.commands import OnUpdate, carry_out, end
from flexrelay_adapters.modbus.config import ModbusConfig
from flexrelay_adapters.modbus.endpoint import PROTOCOL, Endpoint, ModbusStats
from flexrelay_adapters.modbus.intake import Intake
from flexrelay_adapters.modbus.refusals import ConnectionLost, Refused
from flexrelay_adapters.modbus.sunspec import NoSunSpec, Survey, survey
from flexrelay_adapters.modbus.sunspec.survey import Read
from flexrelay_adapters.modbus.values import Span
from flexrelay_sdk import Codec, Command, DeviceFacts, Sink
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)


class ModbusAdapter:
    """`Adapter`, `CommandTarget`, `CommandEnder`, `Discoverer` and `FactTeller`. Credentials are <host:port>/<unit>.
    `clock` is wall-clock UTC ms."""

    def __init__(self, config: ModbusConfig, *, clock: Callable[[], int] = wall_ms) -> None:
        self.name = config.name
        self.protocol = PROTOCOL
        self.config = config
        self.stats = ModbusStats()
        self._clock = clock
        self._codec = ModbusCodec(config)
        self._devices = {device.credential: device for device in config.devices.values()}
        self._endpoints: dict[str, Endpoint] = {}
        self._under_way: set[str] = set()
        self._running = False
        self._open_endpoints()

    def _open_endpoints(self) -> None:
        self._endpoints = {
            address: Endpoint(self.name, address, devices, self.config, self.stats, self._clock)
            for address, devices in self.config.endpoints()
        }

    def validate(self) -> None:
        """The model has checked everything that can be checked without I/O."""

    @property
    def endpoint(self) -> str:
        if not self._endpoints:
            return ", ".join(dict.fromkeys(scan.endpoint for scan in self.config.scan))
        reached = sum(endpoint.connected for endpoint in self._endpoints.values())
        first = next(iter(self._endpoints.values()))
        if len(self._endpoints) == 1:
            return f"{first.address} ({first.trouble})" if first.trouble else first.address
        return f"{first.address} and {len(self._endpoints) - 1} more ({reached} of {len(self._endpoints)} reached)"

    @property
    def connected(self) -> bool:
        """Whether a device of at least one endpoint is being read; where none is configured, whether it runs."""
        if not self._endpoints:
            return self._running
        return any(endpoint.connected for endpoint in self._endpoints.values())

    @property
    def can_command(self) -> bool:
        return any(device.commands or device.control for device in self._devices.values())

    def channels_for(self, credential: str) -> Sequence[str]:
        """The credential itself, when it is one of this adapter's devices."""
        return [credential] if credential in self._devices else []

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if channel in self._devices else None

    def trouble(self, credential: str) -> str:
        """Why a device is not read, "" when it is. Raises KeyError for one that is none of this adapter's."""
        endpoint = self._endpoints[self._devices[credential].endpoint]
        return endpoint.sessions[credential].trouble or endpoint.trouble

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`: SunSpec's common model, or the serial number where one is configured to be read."""
        sessions = [session for endpoint in self._endpoints.values() for session in endpoint.sessions.values()]
        return [(session.credential, session.facts) for session in sessions]

    async def run(self, sink: Sink) -> None:
        """Until cancelled. What the sink raises besides SinkUnavailable ends it (in an exception group)."""
        intake = Intake(self.name, self._codec, self.config.backoff_min_s, self.config.backoff_max_s)
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(intake.run(sink), name=f"{self.name} intake")
                for endpoint in self._endpoints.values():
                    group.create_task(endpoint.run(intake), name=f"{self.name} {endpoint.address}")
        finally:
            self._running = False

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Write the command's registers and read them back; returns when it is acked, failed or expired.

        Raises ValueError for a credential or a command that is not configured here, or a command that is under way.
        """
        device = self._devices.get(command.credential)
        if device is None:
            raise ValueError(f"{self.name} has no device {command.credential}")
        if not device.control and command.name not in device.commands:
            raise ValueError(f"{command.credential} takes no command {command.name}; set its `commands` or `control`")
        if command.command_id in self._under_way:
            raise ValueError(f"command {command.command_id} is under way")
        self._under_way.add(command.command_id)
        try:
            await carry_out(command, self._endpoints[device.endpoint], self.config, on_update, self._clock)
        finally:
            self._under_way.discard(command.command_id)

    def must_end(self, command: Command) -> bool:
        """See `flexrelay_sdk.CommandEnder`. Which timers a SunSpec device has is known when it is asked."""
        device = self._devices.get(command.credential)
        if device is None:
            return False
        return device.control or any(step.revert is not None for step in device.commands.get(command.name, ()))

    async def end(self, command: Command, before: Command | None = None) -> None:
        """See `flexrelay_sdk.CommandEnder`; waits for the device."""
        if self.must_end(command):
            await end(command, before, self._endpoints[self._devices[command.credential].endpoint], self._clock)

    async def discover(self) -> AsyncIterator[str]:
        """SunSpec devices at the places of `scan` that are not configured."""
        async for credential, _ in self.look_around():
            yield credential

    async def look_around(self) -> AsyncIterator[tuple[str, Survey]]:
        """The same with what they are. Makes a connection of its own to each endpoint; what does not answer is
        passed over."""
        for scan in self.config.scan:
            link: Link | None = None
            try:
                for unit in scan.units:
                    credential = f"{scan.endpoint}/{unit}"
                    if credential in self._devices:
                        continue
                    try:
                        if link is None or not link.alive:
                            link = await Link.open(scan.endpoint, self.config.timeout_s)
                        found = await survey(_reader(link, unit))
                    except (ConnectionLost, Refused, NoSunSpec) as error:
                        log.debug("%s: nothing at %s: %s", self.name, credential, error)
                        continue
                    yield credential, found
            finally:
                if link is not None:
                    link.close()


def _reader(link: Link, unit: int) -> Read:
    async def read(span: Span) -> bytes:
        return await link.read(unit, span)

    return read
