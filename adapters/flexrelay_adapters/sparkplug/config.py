"""The adapter's configuration: broker, host identity, groups, which metric is which register, and commands."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from flexrelay_adapters.mqtt.config import BrokerConfig
from flexrelay_sdk.config import Section
from flexrelay_sdk.mapping import Conversion
from flexrelay_sdk.mapping.units import Unit
from flexrelay_sdk.vocabulary import COMMANDS, WINDOW

MetricName = Annotated[str, Field(min_length=1, max_length=400)]
Identifier = Annotated[str, Field(pattern=r"^[^/+#\x00]{1,200}$")]


class MetricMapping(Section):
    """One register from one metric, named as in the birth: value × 10^scale × unit."""

    metric: MetricName
    unit: Unit
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False
    """The source counts feed-in as positive; flexrelay counts withdrawal as positive."""


class WrittenMetric(Section):
    """A parameter of a command and the metric that it is written to. Powers have a unit; `on`, `from_ms` and `until_ms`
    are written as they are. `revert` (W, or 0 and 1) is written when the command's window is over; without it the
    device has to know by itself when to stop."""

    metric: MetricName
    unit: Unit | None = None
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False
    revert: int | None = None


class CommandMapping(Section):
    """How a command is written, in one NCMD or DCMD, and what shows that it was taken.

    Without `result` that is the device's own report of the written metrics: the same values acknowledge, with others
    the command goes on waiting. With it, it is a text metric `<command id>|acked|<detail>` or
    `<command id>|failed|<detail>`.
    """

    write: Annotated[dict[str, WrittenMetric], Field(min_length=1)]
    command_id: MetricName | None = None
    """Text metric that is told the command's id, so that a device acts once on a command that comes twice."""
    expires_at: MetricName | None = None
    """Metric that is told until when (wall clock, UTC ms) the device may act."""
    result: MetricName | None = None

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if self.result is not None and self.command_id is None:
            raise ValueError("result needs command_id: the answer names it")
        return self


class SparkplugConfig(BrokerConfig):
    """One host application on one broker."""

    name: str = "sparkplug"
    host_id: Identifier
    """The host's id: edge nodes that have it as their primary host hold data back while it is offline."""
    groups: Annotated[tuple[Identifier, ...], Field(min_length=1)] | None = None
    """The groups that are listened to; None: all that the broker allows."""
    registers: Annotated[dict[str, MetricMapping], Field(min_length=1)]
    commands: dict[str, CommandMapping] = Field(default_factory=dict)
    rebirth_interval_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """An edge node is asked for its birth at most this often."""
    max_nodes: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_devices: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    """Edge nodes and devices that are remembered; beyond them new ones are turned away, but that a node with more than
    its share of the devices loses some to one with less."""

    @field_validator("registers")
    @classmethod
    def _units(cls, value: dict[str, MetricMapping]) -> dict[str, MetricMapping]:
        for name, mapping in value.items():
            Conversion(name, mapping.unit, mapping.scale, mapping.negate)
        if len({mapping.metric for mapping in value.values()}) < len(value):
            raise ValueError("a metric is mapped to two registers")
        return value

    @field_validator("commands")
    @classmethod
    def _known(cls, value: dict[str, CommandMapping]) -> dict[str, CommandMapping]:
        for name, mapping in value.items():
            kind = COMMANDS.get(name)
            if kind is None:
                raise ValueError(f"unknown command {name!r}; known are {', '.join(sorted(COMMANDS))}")
            missing = set(kind.parameters) - set(mapping.write)
            unknown = set(mapping.write) - {*kind.parameters, *WINDOW}
            if missing or unknown:
                raise ValueError(f"{name}.write must name {', '.join(kind.parameters)}, and may name from_ms, until_ms")
            for parameter, written in mapping.write.items():
                if (written.unit is not None) != parameter.endswith("power_w"):
                    raise ValueError(f"{name}.write.{parameter}: powers have a unit, nothing else has")
                if written.unit is not None:
                    Conversion("power_w", written.unit, written.scale, written.negate)
        return value

    @property
    def told(self) -> frozenset[str]:
        """The metrics whose births are remembered."""
        names = {mapping.metric for mapping in self.registers.values()}
        for command in self.commands.values():
            names |= {written.metric for written in command.write.values()}
            names |= {name for name in (command.command_id, command.expires_at, command.result) if name is not None}
        return frozenset(names)
