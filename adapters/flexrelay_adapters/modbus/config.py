"""The adapter's configuration: devices, where their registers are, how often they are read, how they are told."""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from flexrelay_adapters.modbus.frame import PLAN_BYTES
from flexrelay_adapters.modbus.plan import MAX_COUNT
from flexrelay_adapters.modbus.values import Format, Order, Span, Table, ValueType
from flexrelay_sdk import AdapterConfig, Section
from flexrelay_sdk.mapping import Conversion, Unit
from flexrelay_sdk.vocabulary import COMMANDS

Address = Annotated[int, Field(ge=0, le=65_535)]
Interval = Annotated[float, Field(ge=0.001, le=86_400)]
Exponent = Annotated[int, Field(ge=-12, le=12)]
Kind = Literal["inverter", "battery", "meter"]


class RegisterSource(Section):
    """One register of flexrelay from Modbus registers: value × 10^scale × 10^(what stands at `scale_at`) × unit.

    `address` counts from 0, as it goes over the wire (the manual's 40001 is mostly holding register 0).
    """

    address: Address
    type: ValueType
    unit: Unit
    table: Table = "holding"
    words: Order = "big"
    """Which word of a value comes first."""
    bytes: Order = "big"
    scale: Exponent = 0
    scale_at: Address | None = None
    """A register of the same table with the power of ten (SunSpec's sunssf)."""
    negate: bool = False
    """The source counts feed-in as positive; flexrelay counts withdrawal as positive."""
    absent: Annotated[tuple[int, ...], Field(max_length=8)] = ()
    """Values that mean "there is none", e.g. [65535]."""
    required: bool = True
    """Without a required value the reading is flagged."""
    interval_s: Interval | None = None
    """None: the device's."""

    @property
    def format(self) -> Format:
        return Format(self.type, self.words, self.bytes, self.absent)

    @property
    def span(self) -> Span:
        return Span(self.table, self.address, self.format.size)


class WriteStep(Section):
    """One value that a command writes to holding registers: a parameter in the device's unit, or a fixed `value`.

    `revert` is written when the command's window is over.
    """

    address: Address
    type: ValueType
    parameter: Literal["power_w", "min_power_w", "max_power_w", "on"] | None = None
    value: int | None = None
    unit: Literal["W", "kW", "MW"] | None = None
    scale: Exponent = 0
    negate: bool = False
    words: Order = "big"
    bytes: Order = "big"
    revert: int | None = None
    read_back: bool = True
    """Whether the register tells what was written to it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.parameter is None) == (self.value is None):
            raise ValueError("give either parameter or value")
        if (self.unit is not None) != (self.parameter is not None and self.parameter != "on"):
            raise ValueError("powers have a unit, nothing else has")
        return self

    @property
    def format(self) -> Format:
        return Format(self.type, self.words, self.bytes)


class SerialSource(Section):
    """Where a device tells its serial number (text, two characters a register)."""

    address: Address
    count: Annotated[int, Field(ge=1, le=64)]
    table: Table = "holding"

    @property
    def span(self) -> Span:
        return Span(self.table, self.address, self.count)


class DeviceSection(Section):
    """One unit behind one endpoint. Either `sunspec`, or `registers` with what the manual says."""

    endpoint: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s/:@]+):[0-9]{1,5}$", max_length=260)]
    """host:port."""
    unit: Annotated[int, Field(ge=1, le=255)] = 1
    sunspec: Kind | None = None
    control: bool = False
    """SunSpec: whether it is commanded (models 123, 124, 704)."""
    negate: bool = False
    """SunSpec: the device counts power the other way round than its models say."""
    registers: Annotated[dict[str, RegisterSource], Field(max_length=64)] = Field(default_factory=dict)
    serial: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The device must tell this serial number. Without it the first one that it tells counts until the restart."""
    serial_at: SerialSource | None = None
    """Where, on a device without SunSpec."""
    interval_s: Interval | None = None
    """None: the adapter's."""
    commands: dict[str, Annotated[tuple[WriteStep, ...], Field(min_length=1, max_length=16)]] = Field(
        default_factory=dict
    )

    @field_validator("registers")
    @classmethod
    def _units(cls, value: dict[str, RegisterSource]) -> dict[str, RegisterSource]:
        for name, source in value.items():
            Conversion(name, source.unit, source.scale, source.negate)
            if source.span.end > 65_536:
                raise ValueError(f"{name}: its registers end beyond 65535")
        return value

    @field_validator("commands")
    @classmethod
    def _known(cls, value: dict[str, tuple[WriteStep, ...]]) -> dict[str, tuple[WriteStep, ...]]:
        for name, steps in value.items():
            if name not in COMMANDS:
                raise ValueError(f"unknown command {name!r}; known are {', '.join(sorted(COMMANDS))}")
            for step in steps:
                if step.parameter is not None and step.parameter not in COMMANDS[name].parameters:
                    raise ValueError(f"{name} has no parameter {step.parameter}")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.sunspec is None) == (not self.registers):
            raise ValueError("give either sunspec or registers")
        if self.sunspec is not None and (self.serial_at is not None or self.commands):
            raise ValueError("serial_at and commands are for devices without sunspec; SunSpec has its own (control)")
        if self.sunspec is None and (self.control or self.negate):
            raise ValueError("control and negate are for sunspec; registers have their own negate and commands")
        if self.sunspec is None and self.serial is not None and self.serial_at is None:
            raise ValueError("serial needs serial_at: where the device tells it")
        host, _, port = self.endpoint.rpartition(":")
        if not host or not 1 <= int(port) <= 65_535:
            raise ValueError("endpoint: a port is a number from 1 to 65535")
        return self

    @property
    def credential(self) -> str:
        return f"{self.endpoint}/{self.unit}"

    @property
    def plan(self) -> bytes:
        """Names what gives this device's registers their meaning."""
        meaning = self.model_dump(mode="json", include={"sunspec", "negate", "registers"})
        text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()[:PLAN_BYTES]


class Scan(Section):
    """Where discovery looks for SunSpec devices that are not configured."""

    endpoint: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^\s/:@]+):[0-9]{1,5}$", max_length=260)]
    units: Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(min_length=1, max_length=255)] = (1,)


class ModbusConfig(AdapterConfig):
    """Devices behind any number of endpoints, for one organisation. Each endpoint has one connection with one request
    under way."""

    devices: Annotated[dict[str, DeviceSection], Field(default_factory=dict, max_length=10_000)]
    scan: tuple[Scan, ...] = ()
    """Where discovery looks; alone, before anything is known of the devices, it is enough."""
    interval_s: Interval = 10.0
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 3.0
    """For a connection and for an answer."""
    max_gap: Annotated[int, Field(ge=0, le=124)] = 8
    """Unused registers that are read along, so that one request does for two values."""
    max_count: Annotated[int, Field(ge=8, le=MAX_COUNT)] = MAX_COUNT
    """Registers in one request."""
    confirm_s: Annotated[float, Field(ge=0, le=60)] = 5.0
    """How long a device may take until its registers tell what was written."""
    retry_refused_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """After it, a device whose identity or registers were refused is tried again."""
    backoff_min_s: Annotated[float, Field(gt=0)] = 0.2
    backoff_max_s: Annotated[float, Field(gt=0)] = 30.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.backoff_max_s < self.backoff_min_s:
            raise ValueError("backoff_max_s is less than backoff_min_s")
        if not self.devices and not self.scan:
            raise ValueError("devices is missing: name some, or say with scan where to look for them")
        seen: dict[str, str] = {}
        for name, device in self.devices.items():
            if device.credential in seen:
                raise ValueError(f"devices.{name} and devices.{seen[device.credential]} are the same endpoint and unit")
            seen[device.credential] = name
        return self

    def endpoints(self) -> Iterator[tuple[str, list[tuple[str, DeviceSection]]]]:
        """Each endpoint with its devices."""
        for endpoint in sorted({device.endpoint for device in self.devices.values()}):
            yield endpoint, [item for item in sorted(self.devices.items()) if item[1].endpoint == endpoint]
