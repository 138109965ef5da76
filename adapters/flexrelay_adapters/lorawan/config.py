"""The adapter's configuration: which network server, which way, what each port's payload means."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from flexrelay_adapters._binary import BinaryCommand, BinaryLayout
from flexrelay_adapters._pushed import PushedListen, PushPath
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_sdk.config import AdapterConfig, Section
from flexrelay_sdk.mapping import Mapping
from flexrelay_sdk.vocabulary import COMMANDS

Port = Annotated[int, Field(ge=1, le=223)]


class PortMapping(Mapping):
    """What uplinks on these ports mean. Without `binary` the document that is mapped is what the network server's own
    payload decoder made (`object`, `decoded_payload`), else the fields of `binary`.

    Without `observed_at` a reading gets the time at which the network server received it.
    """

    f_ports: Annotated[tuple[Port, ...], Field(min_length=1)]
    binary: BinaryLayout | None = None
    absent_is_zero: tuple[str, ...] = ()
    """Registers whose value counts as 0 where it is absent: The Things Stack leaves out zeros of decoded payloads."""
    counter_is_seq: bool = False
    """The frame counter is the reading's sequence number, so the gateway notes gaps and refuses replays. Only for
    devices that never join again: a join starts the counter anew, and readings would be refused then."""

    @model_validator(mode="after")
    def _zeros(self) -> Self:
        for register in self.absent_is_zero:
            if register not in self.fields:
                raise ValueError(f"absent_is_zero: {register!r} is not mapped")
        if self.items is not None:
            raise ValueError("items: an uplink is one reading")
        return self


class Downlink(BinaryCommand):
    """A command of the vocabulary as the device gets it. Its fields are the command's parameters and `expires_at`; this
    or `until_ms` must be there, since a network server keeps a downlink until the device wakes."""

    f_port: Port
    confirmed: bool = True

    @model_validator(mode="after")
    def _expiry(self) -> Self:
        if not {"expires_at", "until_ms"} & set(self.fields):
            raise ValueError(
                "fields: expires_at or until_ms is needed, so that the device can tell when it is too late"
            )
        return self


class MqttWay(Section):
    """The network server's broker: the fields of the MQTT adapter's configuration, its topics left out."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    application: Annotated[str, Field(pattern=r"^[^/+#\x00]{1,200}$")]
    """ChirpStack: the application's id. The Things Stack: `application@tenant`."""
    options: dict[str, object] = Field(default_factory=dict)
    """Others of the MQTT adapter's: tls, backoff_min_s, max_pending, …"""


class HttpWay(PushedListen):
    """Where the network server's webhook sends to. Every identity in `tokens_file` is the network server."""

    path: PushPath = "/lorawan"
    tokens_file: Path


class LorawanConfig(AdapterConfig):
    """One network server. Give `mqtt` (readings and commands) or `http` (readings)."""

    name: str = "lorawan"
    server: Literal["chirpstack", "things_stack"]
    mqtt: MqttWay | None = None
    http: HttpWay | None = None
    client_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    username: str | None = None
    password: SecretStr | None = None
    ports: Annotated[tuple[PortMapping, ...], Field(min_length=1)]
    commands: dict[str, Downlink] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mqtt is None) == (self.http is None):
            raise ValueError("give mqtt or http: one way from the network server")
        if self.mqtt is not None and self.client_id is None:
            raise ValueError("client_id is needed with mqtt: the broker keeps the session under it")
        if self.http is not None and self.commands:
            raise ValueError("commands go by mqtt; a webhook brings readings only")
        ports = [port for mapping in self.ports for port in mapping.f_ports]
        if len(set(ports)) != len(ports):
            raise ValueError("ports: a port stands twice")
        for name in self.commands:
            if name not in COMMANDS:
                raise ValueError(f"commands: {name!r} is no command; known are {', '.join(sorted(COMMANDS))}")
        return self

    def broker(self, readings: str, commands: str, results: str) -> MqttConfig:
        """The MQTT adapter's configuration. Raises ValueError naming the field."""
        assert self.mqtt is not None
        section: dict[str, object] = {
            **self.mqtt.options,
            "host": self.mqtt.host,
            "port": self.mqtt.port,
            "client_id": self.client_id,
            "username": self.username,
            "password": self.password,
            "readings": [readings],
        }
        if self.server == "things_stack":
            section.setdefault("protocol", "3.1.1")  # its broker speaks no other
        if self.commands:
            section |= {"commands": commands, "results": results}
        try:
            return MqttConfig.from_section(self.name, section)
        except ValueError as error:
            raise ValueError(f"mqtt.options.{error}") from None
