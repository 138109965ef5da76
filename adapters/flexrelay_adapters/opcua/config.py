"""The adapter's configuration: one frozen model, checked at start, secrets typed."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from flexrelay_sdk import AdapterConfig, Section
from flexrelay_sdk.mapping import UNITS, Conversion, Unit

NodeText = Annotated[
    str,
    Field(pattern=r"^(ns=[0-9]{1,5};|nsu=[^;]{1,200};)?(i=[0-9]{1,10}|s=.{1,400}|g=[0-9a-fA-F-]{36}|b=.{1,400})$"),
]
"""A node id as Part 6 §5.3.1.10 writes it. `nsu=` names the namespace by its URI, which stays when indices move."""


class Security(StrEnum):
    """Security policies (Part 7); the older ones are deprecated and not offered."""

    NONE = "None"
    BASIC256SHA256 = "Basic256Sha256"
    AES128 = "Aes128_Sha256_RsaOaep"
    AES256 = "Aes256_Sha256_RsaPss"


class NodeSource(Section):
    """One register from one variable: value × 10^scale × unit, rounded half to even to the register's integer unit.

    The filters are the server's: `deadband` in the variable's own unit, or `deadband_percent` of its EURange (analogue
    items only); then a value within it is not reported, however new. With neither see the adapter's `report`.
    """

    node: NodeText
    unit: Unit
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False
    """The source counts feed-in as positive; flexrelay counts withdrawal as positive."""
    sampling_ms: Annotated[float, Field(ge=0, le=86_400_000)] | None = None
    """None: the adapter's `sampling_ms`."""
    queue: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Values that the server keeps for us between two publications. None: the adapter's `queue`."""
    deadband: Annotated[float, Field(gt=0)] | None = None
    deadband_percent: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_validator(mode="after")
    def _one_deadband(self) -> Self:
        if self.deadband is not None and self.deadband_percent is not None:
            raise ValueError("deadband and deadband_percent exclude each other")
        return self


class Argument(Section):
    """One argument of a method or the value of a write: a command's parameter as a built-in type, or the command's
    id or expiry. `unit` is what the server counts in; None passes the integer on as it is."""

    parameter: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    """A parameter's name, `command_id` (a String) or `expires_at` (a DateTime)."""
    type: Literal["Double", "Float", "Int16", "Int32", "Int64", "UInt16", "UInt32", "UInt64", "Boolean"] = "Double"
    unit: Unit | None = None
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False

    @model_validator(mode="after")
    def _unit(self) -> Self:
        units = UNITS.get(self.parameter.rsplit("_", 1)[-1], {})
        if self.unit is not None and self.unit not in units:
            raise ValueError(
                f"{self.parameter} cannot be given in {self.unit}; use one of {', '.join(units) or 'none'}"
            )
        return self


class CommandRoute(Section):
    """How a command reaches the device: a write of `arguments[0]` to `write`, or a call of `method` on `object`.
    Without `from_ms` among the arguments that is done when the command's window begins.

    When it is unknown whether a command arrived, it is given once more until it expires. A write is the same state
    twice; a method must either get the `command_id`, by which the device knows it again, or be `repeatable`.
    """

    write: NodeText | None = None
    object: NodeText | None = None
    method: NodeText | None = None
    arguments: Annotated[tuple[Argument, ...], Field(max_length=16)] = ()
    repeatable: bool = False
    """Calling the method twice with the same arguments does what calling it once does."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.write is None) == (self.method is None):
            raise ValueError("give either write or object and method")
        if (self.object is None) != (self.method is None):
            raise ValueError("object and method belong together")
        if self.write is not None and len(self.arguments) != 1:
            raise ValueError("a write needs exactly one argument: what is written")
        if self.method is not None and not (
            self.repeatable or any(argument.parameter == "command_id" for argument in self.arguments)
        ):
            raise ValueError("a method needs command_id among its arguments, or repeatable = true")
        return self


class DeviceNodes(Section):
    """What belongs to one device behind this server."""

    registers: Annotated[dict[str, NodeSource], Field(min_length=1, max_length=64)]
    commands: dict[str, CommandRoute] = Field(default_factory=dict)

    @field_validator("registers")
    @classmethod
    def _units(cls, value: dict[str, NodeSource]) -> dict[str, NodeSource]:
        for name, source in value.items():
            Conversion(name, source.unit)
        if len({source.node for source in value.values()}) != len(value):
            raise ValueError("a node stands for two registers of one device")
        return value


class OpcuaConfig(AdapterConfig):
    """One connection to one server, for one organisation."""

    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^\s@]+$", max_length=400)]
    server: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The server's application URI, as its certificate says; needed with security. It is the first part of the
    devices' credentials. Without security it defaults to host:port of the url."""
    security: Security = Security.BASIC256SHA256
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    application_uri: Annotated[str, Field(min_length=1, max_length=255)] = "urn:flexrelay:gateway"
    """Ours; the certificate in `pki/own` must carry the same one."""
    pki: Path = Path("pki")
    """Folder with own/ (certificate.der, key.pem), trusted/, rejected/ and pending/."""
    state: Path = Path("opcua")
    """Folder of what is remembered over a restart (a small file)."""
    username: str | None = None
    password: SecretStr | None = None
    user_certificate: Path | None = None
    user_key: Path | None = None
    devices: Annotated[dict[str, DeviceNodes], Field(min_length=1)]
    time: Literal["source", "server"] = "source"
    """Which of the timestamps is the reading's instant. The other one, then the time of reception, stand in for it."""
    report: Literal["time", "value"] = "time"
    """What the server reports: every new source time (a meter that stands still says so), or other values only."""
    publishing_ms: Annotated[float, Field(ge=10, le=3_600_000)] = 1000.0
    sampling_ms: Annotated[float, Field(ge=0, le=86_400_000)] = 500.0
    queue: Annotated[int, Field(ge=1, le=100_000)] = 100
    publish_requests: Annotated[int, Field(ge=1, le=32)] = 4
    """How many publish requests wait at the server: also how many responses may wait here."""
    keep_s: Annotated[int, Field(ge=10, le=86_400)] = 600
    """How long the server is asked to keep session and subscription while the gateway is away."""
    history: bool = True
    """After an outage read what the server kept of it (HistoryRead), where it does."""
    history_s: Annotated[int, Field(ge=0, le=366 * 86_400)] = 86_400
    """How far back at most."""
    max_message_bytes: Annotated[int, Field(ge=2**16, le=2**30)] = 16 * 2**20
    """The greatest message that is taken from the server; one that sends more is cut off."""
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    backoff_min_s: Annotated[float, Field(gt=0)] = 0.2
    backoff_max_s: Annotated[float, Field(gt=0)] = 30.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.security is not Security.NONE and self.server is None:
            raise ValueError(
                "server is missing: the application URI of the server's certificate (`flexrelay opcua list` shows "
                "those that wait for approval)"
            )
        if self.password is not None and self.username is None:
            raise ValueError("password without username")
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("user_certificate and user_key belong together: give both or none")
        if self.username is not None and self.user_certificate is not None:
            raise ValueError("username and user_certificate exclude each other")
        if self.security is Security.NONE and self.password is not None and not self.loopback:
            raise ValueError("a password must not go over the network without security; set security")
        if self.backoff_max_s < self.backoff_min_s:
            raise ValueError("backoff_max_s is less than backoff_min_s")
        if not all(name and len(name) <= 200 for name in self.devices):
            raise ValueError("a device's name has 1 to 200 characters")
        return self

    @property
    def loopback(self) -> bool:
        return self.host_port.rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]")

    @property
    def host_port(self) -> str:
        place = self.url.removeprefix("opc.tcp://").partition("/")[0]
        return place if place.rpartition(":")[2].isdigit() else f"{place}:4840"

    @property
    def identity(self) -> str:
        """Who the server is, as its devices' credentials say."""
        return self.server or self.host_port

    def credential(self, device: str) -> str:
        """The credential of one of the server's devices."""
        return f"{self.identity}/{device}"

    def device(self, credential: str) -> str | None:
        """The device with this credential; None when it is none of this server's."""
        identity = f"{self.identity}/"
        name = credential.removeprefix(identity)
        return name if credential.startswith(identity) and name in self.devices else None

    def nodes(self) -> Iterator[tuple[str, str, NodeSource]]:
        """(device, register, source) in a fixed order: the client handles count along it, from 1."""
        for device in sorted(self.devices):
            for register in sorted(self.devices[device].registers):
                yield device, register, self.devices[device].registers[register]
