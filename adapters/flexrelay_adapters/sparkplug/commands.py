"""Commands as NCMD and DCMD: metrics written, and what the device says about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from flexrelay_adapters.mqtt.commands import Waiting
from flexrelay_adapters.sparkplug.config import CommandMapping, WrittenMetric
from flexrelay_adapters.sparkplug.frame import Told
from flexrelay_adapters.sparkplug.nodes import REBIRTH, Thing
from flexrelay_adapters.sparkplug.payload import BOOLEAN, Value, set_value, value_of
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_sdk import Command, CommandState, DecodeError
from flexrelay_sdk.mapping import Conversion
from flexrelay_sdk.mapping.units import units_of


def rebirth_payload(now_ms: int) -> bytes:
    """The NCMD that asks an edge node for its births."""
    payload = Payload(timestamp=now_ms)
    metric = payload.metrics.add(name=REBIRTH, timestamp=now_ms)
    set_value(metric, 1, BOOLEAN)
    return payload.SerializeToString()


def command_payload(command: Command, mapping: CommandMapping, thing: Thing, now_ms: int) -> bytes:
    """Raises ValueError when the device's birth does not tell of a metric, or cannot hold the value."""
    payload = Payload(timestamp=now_ms)
    for parameter, written in mapping.write.items():
        if parameter in command.parameters:
            _write(payload, thing, written.metric, _outward(command.parameters[parameter], written), now_ms)
    if mapping.command_id is not None:
        _write(payload, thing, mapping.command_id, command.command_id, now_ms)
    if mapping.expires_at is not None:
        _write(payload, thing, mapping.expires_at, command.expires_at, now_ms)
    return payload.SerializeToString()


def _outward(value: int, written: WrittenMetric) -> int | Decimal:
    """The register's integer in the metric's unit, exactly."""
    if written.unit is None:
        return value
    number = Decimal(-value if written.negate else value) / units_of("power_w")[written.unit]
    return number.scaleb(-written.scale)


def _write(payload: Payload, thing: Thing, name: str, value: int | Decimal | str, now_ms: int) -> None:
    told = thing.told.get(name)
    if told is None:
        raise ValueError(f"the device's birth does not tell of metric {name!r}")
    metric = payload.metrics.add(timestamp=now_ms)
    if told.alias is None:
        metric.name = name
    else:
        metric.alias = told.alias
    set_value(metric, value, told.datatype)


@dataclass(slots=True)
class Pending:
    """A command that waits for its device's word."""

    waiting: Waiting
    mapping: CommandMapping
    sent: bool = False
    births: int = 0
    """How often its device had been born when it was sent."""
    end: bool = False
    """It ends what was written before."""

    @property
    def tells_window(self) -> bool:
        """Whether the device is told when to act."""
        return "from_ms" in self.mapping.write

    def verdict(self, reported: Mapping[str, Value]) -> tuple[CommandState, str] | None:
        """What these metrics of the device, received after the command was sent, say about it."""
        if self.mapping.result is not None:
            answer = reported.get(self.mapping.result)
            command_id, _, rest = answer.partition("|") if isinstance(answer, str) else ("", "", "")
            word, _, detail = rest.partition("|")
            if command_id != self.waiting.command.command_id or word not in ("acked", "failed"):
                return None
            return CommandState(word), detail[:500]
        told = [
            reported.get(written.metric)
            for name, written in self.mapping.write.items()
            if name in self.waiting.command.parameters
        ]
        if any(value is None for value in told):
            return None
        for name, written in self.mapping.write.items():
            if name in self.waiting.command.parameters and not _same(
                reported[written.metric], self.waiting.command.parameters[name], written
            ):
                return None
        return CommandState.ACKED, "reported by the device"


def _same(value: Value, wanted: int, written: WrittenMetric) -> bool:
    if written.unit is None:
        return value == wanted
    try:
        return Conversion("power_w", written.unit, written.scale, written.negate).convert(value) == wanted
    except DecodeError:
        return False


def reported(payload: Payload, told: Mapping[str, Told]) -> dict[str, Value]:
    """name → value of the metrics in a payload that the birth has told of. Of historical ones only texts, which name
    the command that they answer: a number may be from before it."""
    aliases = {each.alias: each for each in told.values() if each.alias is not None}
    found: dict[str, Value] = {}
    for metric in payload.metrics:
        each = told.get(metric.name) if metric.name else aliases.get(metric.alias)
        if each is not None and not (metric.is_historical and metric.WhichOneof("value") != "string_value"):
            try:
                found[each.name] = value_of(metric, each.datatype)
            except DecodeError:
                continue
    return found
