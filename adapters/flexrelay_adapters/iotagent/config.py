"""The configuration that both dialects share: transports, API keys, provisioning, mapping, commands."""

import re
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, SecretStr, field_validator, model_validator

from flexrelay_adapters.mqtt.config import BrokerConfig
from flexrelay_sdk.config import AdapterConfig, Section, below
from flexrelay_sdk.mapping import JsonMapping
from flexrelay_sdk.mapping.conversion import check_unit
from flexrelay_sdk.mapping.units import Unit
from flexrelay_sdk.vocabulary import COMMANDS

ApiKey = Annotated[str, Field(pattern=r"^[^/+#|@?&\x00-\x20]{1,120}$")]
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Broker(BrokerConfig):
    """The broker of the MQTT transport."""

    name: str = ""
    leading_slash: bool = True
    """Topics begin with / (the IoT Agents' default)."""
    command_topic: str = "/{apikey}/{device}/cmd"
    """Where the IoT Agents publish commands."""

    @field_validator("command_topic")
    @classmethod
    def _one_device(cls, value: str) -> str:
        levels = value.split("/")
        if levels.count("{apikey}") != 1 or levels.count("{device}") != 1 or set("+#\0") & set(value):
            raise ValueError("command_topic needs the levels {apikey} and {device} once each, and no + or #")
        return value


class ServerTls(Section):
    """PEM files; with `ca` clients must show a certificate of it."""

    certificate: Path
    key: Path
    ca: Path | None = None


class Listen(Section):
    """Where an HTTP server listens; beyond loopback only with TLS."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]
    tls: ServerTls | None = None
    insecure: bool = False
    """Listen beyond loopback without TLS: API keys and tokens cross the network as they are."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.host not in _LOOPBACK and self.tls is None and not self.insecure:
            raise ValueError(f"host {self.host} is beyond loopback: set tls, or insecure = true behind a proxy")
        return self


AnyListen = TypeVar("AnyListen", bound=Listen)


class Measures(Listen):
    """The HTTP transport of the devices."""

    port: Annotated[int, Field(ge=0, le=65535)] = 7896
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Requests that wait for the journal; beyond them devices are told to come again (503)."""
    relays: tuple[str, ...] = ()
    """Common names of certificates that may speak for any device; another's is the device that it names."""


class Provisioning(Listen):
    """The API of /iot/services and /iot/devices. `token` is asked for as Bearer or X-Auth-Token."""

    port: Annotated[int, Field(ge=0, le=65535)] = 4041
    token: SecretStr

    @field_validator("token")
    @classmethod
    def _long(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:
            raise ValueError("at least 16 characters are needed")
        return value


class Single(Section):
    """A command that is one value: this parameter in this unit. It is sent when the command's window begins, and when
    it is over `revert` (W, or 0 and 1); without it the device has to know by itself when to stop."""

    parameter: str
    unit: Unit | None = None
    negate: bool = False
    revert: int | None = None


class CommandMapping(Section):
    """A command as the device knows it. Without `value` it gets all parameters by name, `id` and `expires_at`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] | None = None
    value: Single | None = None
    failed: str = r"(?i)^\W*(error|err\b|fail|nok\b|refus|reject|unknown)"
    """A result that this expression is found in is a refusal."""

    @field_validator("failed")
    @classmethod
    def _expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return value


class IotAgentConfig(AdapterConfig):
    """One adapter; at least one of `mqtt` and `http`."""

    mqtt: Broker | None = None
    http: Measures | None = None
    provisioning: Provisioning | None = None
    state: Path | None = None
    """Folder that keeps what was provisioned; needed with `provisioning`."""
    apikeys: tuple[ApiKey, ...] = ()
    """API keys besides those of provisioned services. Over MQTT, none means all that the broker allows."""
    codec: JsonMapping
    commands: dict[str, CommandMapping] = Field(default_factory=dict)
    max_payload_bytes: Annotated[int, Field(ge=64, le=2**24)] = 64 * 1024
    max_devices: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    """Devices that can be provisioned."""

    @field_validator("commands")
    @classmethod
    def _known(cls, value: dict[str, CommandMapping]) -> dict[str, CommandMapping]:
        for name, mapping in value.items():
            kind = COMMANDS.get(name)
            if kind is None:
                raise ValueError(f"unknown command {name!r}; known are {', '.join(sorted(COMMANDS))}")
            single = mapping.value
            if single is not None:
                if (single.parameter,) != kind.parameters:
                    raise ValueError(f"{name}.value: it has the parameters {', '.join(kind.parameters)}")
                if (single.unit is not None) != single.parameter.endswith("power_w"):
                    raise ValueError(f"{name}.value: powers have a unit, nothing else has")
                if single.unit is not None:
                    check_unit("power_w", single.unit)
        wire = [mapping.name or name for name, mapping in value.items()]
        if len(set(wire)) < len(wire):
            raise ValueError("two commands have one name on the wire")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mqtt is None and self.http is None:
            raise ValueError("at least one of mqtt and http is needed")
        if self.provisioning is not None and self.state is None:
            raise ValueError("provisioning needs state: the folder that keeps it")
        if self.codec.items is not None:
            raise ValueError("codec.items has no meaning here: groups of measures are readings")
        return self

    def at(self, folder: Path) -> Self:
        """The same, with paths as they are meant in a configuration file of `folder`."""
        mqtt = self.mqtt
        if mqtt is not None:
            mqtt = mqtt.model_copy(update={"name": self.name, "max_payload_bytes": self.max_payload_bytes}).below(
                folder
            )
        return self.model_copy(
            update={
                "mqtt": mqtt,
                "http": _below(self.http, folder),
                "provisioning": _below(self.provisioning, folder),
                "state": below(folder, self.state),
            }
        )


def _below(listen: AnyListen | None, folder: Path) -> AnyListen | None:
    if listen is None or listen.tls is None:
        return listen
    files = {field: below(folder, getattr(listen.tls, field)) for field in ("certificate", "key", "ca")}
    return listen.model_copy(update={"tls": listen.tls.model_copy(update=files)})
