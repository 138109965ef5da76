"""A simulated device without a protocol: what it measures when, and what it answers to commands."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple

from flexrelay_sdk.simulation.devices import Battery, EvCharger, HeatPump, Meter, PvInverter
from flexrelay_sdk.simulation.model import Model, Series
from flexrelay_sdk.simulation.profile import DeviceSpec, Profile
from flexrelay_sdk.vocabulary import check

Fault = Literal["none", "refuses", "silent", "deaf"]
"""How a device fails: it answers that it does not, it says it does and does not, or it never answers."""


_REMEMBERED: Final = 1000
"""Commands whose answer a device remembers."""


class Sample(NamedTuple):
    """A reading as the device knows it: UTC ms, its own count from 1, registers as in `REGISTERS`."""

    observed_at: int
    seq: int
    registers: dict[str, int]


class Answer(NamedTuple):
    """What a device says to a command."""

    state: Literal["acked", "failed"]
    detail: str
    values: dict[str, int]


@dataclass
class DeviceSimulator:
    """One device; a protocol's simulator asks it for samples and hands it commands."""

    name: str
    model: Model
    fault: Fault = "none"
    measured_at: int = 0
    """Instant of the last sample, UTC ms; 0 before the first."""
    _seq: int = 0
    _answers: dict[str, Answer] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.model.kind

    def sample(self, now_ms: int) -> Sample:
        """Live on until `now_ms` and measure. Instants and counts of one device only grow."""
        self.model.advance(now_ms)
        self._seq += 1
        self.measured_at = now_ms
        return Sample(now_ms, self._seq, self.model.registers())

    def obey(
        self, command_id: str, name: str, parameters: Mapping[str, int], *, expired: bool = False
    ) -> Answer | None:
        """Act on a command and answer; None: no answer (expired, or deaf). The same id is done once."""
        if command_id in self._answers:
            return self._answers[command_id]
        if expired or self.fault == "deaf":
            return None
        refusal = "device fault" if self.fault == "refuses" else check(name, parameters)
        refusal = refusal or self.model.refusal(name, parameters)
        if refusal:
            answer = Answer("failed", refusal, {})
        else:
            if self.fault != "silent":
                self.model.order(name, parameters)
            answer = Answer("acked", "", {"power_w": self.model.power_w})
        self._answers[command_id] = answer
        if len(self._answers) > _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        return answer


def make_devices(profile: Profile, count: int, seed: str, start_ms: int) -> list[DeviceSimulator]:
    """`count` devices of the profile's kinds in turn, named `<kind>-<n>`; from the second round on each stands
    elsewhere in its series, by `seed`, so that no two do the same. Raises ValueError for parameters that make no
    device."""
    devices = []
    for number in range(count):
        spec = profile.devices[number % len(profile.devices)]
        name = f"{spec.kind.replace('_', '-')}-{number + 1}"
        series = None
        if spec.series:
            values = profile.series[spec.series]
            chance = random.Random(f"{seed}/{name}")  # noqa: S311  # repeatable on purpose
            shift = chance.randrange(len(values)) if number >= len(profile.devices) else 0
            series = Series(values[shift:] + values[:shift], profile.step_s, start_ms)
        devices.append(DeviceSimulator(name, _model(spec, series, start_ms)))
    return devices


def _model(spec: DeviceSpec, series: Series | None, start_ms: int) -> Model:
    kind, series_name = _KINDS[spec.kind]
    known = {each.name for each in fields(kind) if each.type in (int, "int") and each.name not in _STATE}
    unknown = sorted(set(spec.parameters) - known)
    if unknown:
        raise ValueError(f"a {spec.kind} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    values: dict[str, Any] = {**spec.parameters}
    if series_name:
        values[series_name] = series
    return kind(start_ms, **values)


_KINDS: Final[Mapping[str, tuple[type[Model], str]]] = {
    "meter": (Meter, "load"),
    "pv": (PvInverter, "sun"),
    "battery": (Battery, ""),
    "ev_charger": (EvCharger, "presence"),
    "heat_pump": (HeatPump, "outdoor"),
}
_STATE: Final = ("start_ms", "power_w", "_now_ms")
