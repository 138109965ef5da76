"""Simulated devices on MQTT: each an ordinary client of the broker (aiomqtt), plain JSON or signed readings.

They share nothing with the adapter but the topics, so that adapter and devices do not agree on a common mistake.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import Field, SecretStr, model_validator

from flexrelay_adapters._simulated import JsonDevice
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatedIdentity, SimulatorStats

log = logging.getLogger(__name__)

SESSION_S = 3600
_TURNED_AWAY = frozenset({134, 135})
"""Bad user name or password, not authorised: reason codes of MQTT 5, to which paho translates 3.1.1's."""


class MqttSimulatorConfig(AdapterConfig):
    """Where the devices send. `{device}` in `username`, topics and `password` is the device's name (with `identities`:
    the last part of its DID)."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    username: str | None = None
    password: SecretStr | None = None
    readings: Annotated[tuple[str, ...], Field(min_length=1)] = ("flexrelay/v1/sim/{device}/readings",)
    """A reading goes to each of these topics, one a receiver."""
    commands: str | None = "flexrelay/v1/sim/{device}/commands"
    results: str | None = "flexrelay/v1/sim/{device}/results"
    identities: Path | None = None
    """Folder with <name>.pem and <name>.json as `flexrelay device add` makes them: readings are signed. Without it
    they are plain JSON: `observed_at` (UTC ms), `seq` and the registers by name."""
    backoff_s: Annotated[float, Field(gt=0, le=60)] = 1.0

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
    if config.identities is None:
        return MqttSimulator(config, [JsonDevice(device, device.name, None) for device in devices], plan)
    made = []
    for device in devices:
        try:
            identity = SimulatedIdentity.read(folder / config.identities, device.name)
        except (OSError, ValueError) as error:
            raise ValueError(f"identities: {error}") from None
        made.append(JsonDevice(device, identity.scid, identity))
    return MqttSimulator(config, made, plan)


def check_cancelled() -> None:
    """Python 3.11's wait_for, in aiomqtt, can lose a cancellation that comes together with what it waits for; then a
    loop would go on for ever. Not for a task that has had a TaskGroup: its count keeps what the group did to it.
    So a connection lives in a task of its own, which asks before its group, and the task that waits for it after."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def check_lost(errors: BaseException, where: str, who: str) -> None:
    """Raises ConnectionError when the broker has turned `who` away; any other end of the connection is only logged."""
    error = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    for told in _told(errors):
        code = getattr(told, "rc", None)  # a number is paho's own: its 4 says that there is no connection
        if isinstance(code, ReasonCode) and code.value in _TURNED_AWAY:
            raise ConnectionError(f"{where} turns {who} away: {told}; check username and password")
    log.info("%s: connection to %s lost: %s", who, where, error)


def _told(error: BaseException) -> Iterator[BaseException]:
    """An error, or those of a group, each with what it came from."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _told(each)
        return
    yield error
    if error.__cause__ is not None:
        yield error.__cause__


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
        try:
            async with asyncio.TaskGroup() as group:
                for number, device in enumerate(self._devices):
                    group.create_task(self._live(number, device), name=f"device {device.simulator.name}")
        except* ConnectionError as errors:
            raise ConnectionError(str(errors.exceptions[0])) from None

    async def _live(self, number: int, device: Speaking) -> None:
        while True:
            lost = await asyncio.create_task(self._connected(number, device))
            check_cancelled()
            if lost is not None:
                check_lost(lost, f"{self._config.host}:{self._config.port}", device.credential)
            self.stats.reconnects += 1
            await asyncio.sleep(self._config.backoff_s)

    async def _connected(self, number: int, device: Speaking) -> BaseException | None:
        """One connection until it is lost; why."""
        lost: BaseException | None = None
        try:
            async with self._client(device) as client:
                check_cancelled()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._measure(number, device, client))
                    if self._config.commands is not None:
                        group.create_task(self._obey(device, client))
        except* aiomqtt.MqttError as errors:
            lost = errors
        return lost

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

    def _client(self, device: Speaking) -> aiomqtt.Client:
        config = self._config
        fill: Callable[[str], str] = lambda text: text.replace("{device}", device.credential)  # noqa: E731  # one line
        session: dict[str, Any] = {"clean_session": False}
        if config.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has none here
            properties.SessionExpiryInterval = SESSION_S
            session = {"clean_start": False, "properties": properties}
        return aiomqtt.Client(
            config.host,
            config.port,
            identifier=device.credential,
            username=fill(config.username) if config.username is not None else None,
            password=fill(config.password.get_secret_value()) if config.password is not None else None,
            protocol=aiomqtt.ProtocolVersion.V5 if config.protocol == "5" else aiomqtt.ProtocolVersion.V311,
            timeout=30,
            **session,
        )
