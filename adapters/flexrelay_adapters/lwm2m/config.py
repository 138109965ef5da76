"""The adapter's configuration: one frozen model, checked at start."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from flexrelay_adapters.lwm2m.formats import FormatError, parse_path
from flexrelay_adapters.lwm2m.objects import UNITS
from flexrelay_schemas.reading import REGISTERS
from flexrelay_sdk.config import AdapterConfig, Section

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class CoapConfig(Section):
    """CoAP without security. The credential of a device is "udp:" and its address, so this is for networks that
    guarantee addresses (a private APN, a wired bus): `allow` names them, everybody else is not heard at all."""

    host: str = "127.0.0.1"
    port: Port = 5683
    allow: Annotated[tuple[str, ...], Field(min_length=1)] = ("127.0.0.0/8", "::1/128")

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value


class CoapsConfig(Section):
    """CoAP over DTLS 1.2. The credential is the PSK identity or the common name of the device's certificate.

    `psk_file` has one `identity:key` a line, the key in hexadecimal (Mosquitto's form); it is read again when it has
    changed. `ca` holds the certificates that devices' certificates must come from; `certificate` and `key` are the
    server's own.
    """

    host: str = "127.0.0.1"
    port: Port = 5684
    psk_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    mtu: Annotated[int, Field(ge=256, le=16_000)] = 1280
    max_sessions: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_handshakes: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Handshakes under way; beyond it new ones wait for a place, sessions that stand are not touched."""
    idle_s: Seconds = 86_400
    """A session without a sign of life ends after that."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.psk_file is None and self.ca is None:
            raise ValueError("give psk_file, or ca with certificate and key, or both")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or none")
        if self.ca is not None and self.certificate is None:
            raise ValueError("ca needs certificate and key, the server's own")
        return self


class OverrideConfig(Section):
    """What a resource of all devices of this adapter means; `register` None: nothing."""

    register_: Annotated[str | None, Field(alias="register")] = None
    unit: str = ""
    negate: bool = False
    """The source counts feed-in as positive; flexrelay counts withdrawal as positive."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.register_ is None:
            return self
        if self.register_ not in REGISTERS:
            raise ValueError(f"unknown register {self.register_!r}; known are {', '.join(sorted(REGISTERS))}")
        kind = self.register_.rpartition("_")[2]
        fitting = [unit for unit, (of, _, _) in UNITS.items() if of == kind]
        if self.unit not in fitting:
            raise ValueError(f"register {self.register_} cannot be given in {self.unit!r}; use one of {fitting}")
        return self


class AttributesConfig(Section):
    """Notification attributes of one observed path (OMA Core §5.1.2). `pmin` and `pmax` in seconds; for a numeric
    resource: `gt` and `lt`, thresholds that it notifies of when it crosses them, `st`, the least change."""

    pmin: Annotated[int, Field(ge=0, le=86_400)] | None = None
    pmax: Annotated[int, Field(ge=1, le=86_400)] | None = None
    gt: Annotated[float, Field(allow_inf_nan=False)] | None = None
    lt: Annotated[float, Field(allow_inf_nan=False)] | None = None
    st: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.pmin is not None and self.pmax is not None and self.pmin > self.pmax:
            raise ValueError(f"pmin {self.pmin} is more than pmax {self.pmax}")
        if self.gt is not None and self.lt is not None and self.lt + 2 * (self.st or 0) >= self.gt:
            raise ValueError("lt + 2 × st must be less than gt")
        return self

    def given(self) -> dict[str, float]:
        """Those that are set, by name."""
        return self.model_dump(exclude_none=True)


class CommandConfig(Section):
    """How `set_power` reaches a device.

    `load_control` writes object 3310: event (the command's id), start, duration, and the power as a percentage of
    `rated_w`. `power_control` writes object 3312: on or off and the dimmer in percent, when the command's window
    begins, and on and 100 % when it is over; it takes `switch`, too.
    `set_point` writes event, start and duration of object 3310 and the power in W as the set point of object 3308
    (positive = withdrawal, negative = feed-in), all in one Write-Composite: for devices that do both directions.
    """

    via: Literal["load_control", "power_control", "set_point"] = "load_control"
    rated_w: Annotated[int, Field(ge=1, le=10**9)]
    """The power that 100 % stands for; of a set point the greatest in either direction."""
    instance: Annotated[int, Field(ge=0, le=65_534)] = 0
    lead_s: Annotated[float, Field(ge=0, le=7 * 86_400)] | None = None
    """How long before its window a command may be written; None: as soon as it is known, which a device that keeps one
    event at a time does not bear."""
    confirm: bool = True
    """Read back what was written before the command counts as done."""


class Lwm2mConfig(AdapterConfig):
    """One LwM2M server (and bootstrap server) of one gateway."""

    coap: CoapConfig | None = None
    coaps: CoapsConfig | None = None
    state: Path | None = None
    """The file that keeps registrations over a restart; None: lwm2m-<name>.db beside the configuration."""
    bootstrap_file: Path | None = None
    """JSON: what a device is given when it bootstraps, by credential (README)."""
    observe: tuple[str, ...] | None = None
    """Paths that are observed on every device that has them; None: the energy objects. () observes nothing."""
    pmin_s: Annotated[int, Field(ge=0, le=86_400)] | None = None
    pmax_s: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Least and greatest time between notifications, written to what is observed."""
    attributes: dict[str, AttributesConfig] = Field(default_factory=dict)
    """By path of `observe`: what counts there instead."""
    nameplate: bool = True
    """Read from each device's object 3 what it is: maker, model, serial number, firmware, battery."""
    commands: CommandConfig | None = None
    overrides: dict[str, OverrideConfig] = Field(default_factory=dict)
    """By resource path, e.g. "/3305/1/5800"."""
    awake_s: Seconds = 93.0
    """How long a device in queue mode listens after it was heard (MAX_TRANSMIT_WAIT)."""
    max_devices: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    batch: Annotated[int, Field(ge=1, le=65_535)] = 2_000
    """Frames given to the sink at once."""
    max_pending: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Frames that wait for the sink; beyond it messages are not answered, so that they come again."""
    max_pending_bytes: Annotated[int, Field(ge=2**16, le=2**30)] = 32 * 2**20
    max_payload_bytes: Annotated[int, Field(ge=64, le=2**20)] = 64 * 1024
    reply_cache: Annotated[int, Field(ge=100, le=10**7)] = 100_000
    reply_cache_bytes: Annotated[int, Field(ge=2**16, le=2**30)] = 32 * 2**20
    """Bounds of what is kept to recognise duplicates."""
    rate: Annotated[float, Field(gt=0)] = 200.0
    burst: Annotated[float, Field(ge=1)] = 2_000.0
    """Messages a second and at once that are taken from one peer."""
    refused_for_s: Seconds = 60.0
    """How long a credential that the gateway does not take readings from is answered 4.03 without a look at them."""
    ack_timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    backoff_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    """How long nothing is given to the sink after it could not store."""

    @field_validator("observe")
    @classmethod
    def _paths(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            _path(text)
        return value

    @field_validator("overrides")
    @classmethod
    def _resources(cls, value: dict[str, OverrideConfig]) -> dict[str, OverrideConfig]:
        for text in value:
            if _path(text) != 3:
                raise ValueError(f"{text!r} is no resource path such as /3305/0/5800")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.coap is None and self.coaps is None:
            raise ValueError("give coap, coaps or both: without one nothing is received")
        if self.pmin_s is not None and self.pmax_s is not None and self.pmax_s < self.pmin_s:
            raise ValueError("pmax_s is less than pmin_s")
        for path, attributes in self.attributes.items():
            if path not in (self.observe or ()):
                raise ValueError(f"attributes.{path}: list the path in observe, too")
            if _path(path) < 3 and attributes.given().keys() & {"gt", "lt", "st"}:
                raise ValueError(f"attributes.{path}: gt, lt and st are of a resource, /object/instance/resource")
        if self.max_pending_bytes < self.max_payload_bytes:
            raise ValueError("max_pending_bytes is less than max_payload_bytes")
        return self


def _path(text: str) -> int:
    try:
        return len(parse_path(text))
    except FormatError as error:
        raise ValueError(error.message) from None
