"""Simulated devices of an IoT Agent on MQTT. What they say is written here once more, without the adapter's code."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flexrelay_adapters.iotagent.config import ApiKey
from flexrelay_adapters.mqtt.devices import DeviceBroker
from flexrelay_adapters.mqtt.simulator import MqttSimulator, MqttSimulatorConfig
from flexrelay_sdk.simulation import DeviceSimulator, Plan
from flexrelay_sdk.simulation.simulator import Answer, Sample


class IotAgentSimulatorConfig(DeviceBroker):
    """Where the devices send. `{device}` in `username` and `password` is the device's name. Measures are named as the
    registers, in their units."""

    apikey: ApiKey = "flexrelay"


class SpokenDevice(ABC):
    """A device in the words of one dialect."""

    def __init__(self, simulator: DeviceSimulator) -> None:
        self.simulator = simulator
        self.credential = simulator.name
        self.unsent: bytes | None = None

    def payload(self, now_ms: int) -> bytes:
        sample = self.simulator.sample(now_ms)
        at = datetime.fromtimestamp(sample.observed_at / 1000, UTC).isoformat(timespec="milliseconds")
        return self.measures(sample, at)

    def answer(self, payload: bytes, wall_ms: int) -> bytes | None:
        try:
            name, told = self.told(payload)
            command_id, expires_at = str(told["id"]), int(told["expires_at"])
            parameters = {key: int(value) for key, value in told.items() if key not in ("id", "expires_at")}
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return None
        given = self.simulator.obey(command_id, name, parameters, expired=wall_ms >= expires_at)
        return None if given is None else self.result(name, command_id, given)

    @abstractmethod
    def measures(self, sample: Sample, at: str) -> bytes: ...

    @abstractmethod
    def told(self, payload: bytes) -> tuple[str, Mapping[str, Any]]: ...

    @abstractmethod
    def result(self, name: str, command_id: str, given: Answer) -> bytes: ...


def text_of(command_id: str, given: Answer) -> str:
    return f"ok {command_id}" if given.state == "acked" else f"error {command_id} {given.detail}"


class UltralightDevice(SpokenDevice):
    def measures(self, sample: Sample, at: str) -> bytes:
        return "|".join([at, *(f"{name}|{value}" for name, value in sample.registers.items())]).encode()

    def told(self, payload: bytes) -> tuple[str, Mapping[str, Any]]:
        head, *fields = payload.decode().split("|")
        return head.split("@")[1], dict(field.split("=", 1) for field in fields)

    def result(self, name: str, command_id: str, given: Answer) -> bytes:
        return f"{self.credential}@{name}|{text_of(command_id, given)}".encode()


class JsonDevice(SpokenDevice):
    def measures(self, sample: Sample, at: str) -> bytes:
        return json.dumps({"TimeInstant": at, **sample.registers}).encode()

    def told(self, payload: bytes) -> tuple[str, Mapping[str, Any]]:
        ((name, told),) = json.loads(payload).items()
        return name, told

    def result(self, name: str, command_id: str, given: Answer) -> bytes:
        return json.dumps({name: text_of(command_id, given)}).encode()


def simulator_of(
    kind: type[SpokenDevice], level: str, section: Mapping[str, Any], devices: Sequence[DeviceSimulator], plan: Plan
) -> MqttSimulator:
    """`level` is the first of the topics. Raises ValueError whose text begins with the field's path."""
    config = IotAgentSimulatorConfig.from_section(level, section)
    key = config.apikey
    spoken = MqttSimulatorConfig(
        **config.model_dump(exclude={"apikey"}),
        readings=(f"/{level}/{key}/{{device}}/attrs",),
        commands=f"/{key}/{{device}}/cmd",
        results=f"/{level}/{key}/{{device}}/cmdexe",
    )
    return MqttSimulator(spoken, [kind(device) for device in devices], plan)
