"""Batteries that speak another protocol than MQTT to their aggregator's gateway: the demo's plants as the simulators of
`flexrelay simulate` know devices.

These protocols carry no device's signature, so nothing is settled from what comes over them: the gateway attests it,
and the battery's meter, which signs, measures the same plant over MQTT (docs/decisions/demo-input.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from flexrelay.demo.plants import BatteryPlant, SetPoint
from flexrelay_sdk.simulation import DeviceSimulator, Model, Plan
from flexrelay_sdk.vocabulary import SET_POWER


@dataclass
class PlantModel(Model):
    """A battery's plant as the simulators know models; it measures at the boundaries of ISPs."""

    kind: ClassVar[str] = "battery"
    commands: ClassVar[frozenset[str]] = frozenset({SET_POWER})
    plant: BatteryPlant = field(kw_only=True)
    isp_ms: int = field(kw_only=True)
    _boundary: int = 0

    @property
    def least_w(self) -> int:
        return -self.plant.rated_w

    @property
    def most_w(self) -> int:
        return self.plant.rated_w

    def wanted_w(self, now_ms: int) -> int:
        return 0

    def advance(self, until_ms: int) -> None:
        self._boundary = max(self._boundary, (until_ms - self.start_ms) // self.isp_ms)

    def registers(self) -> dict[str, int]:
        return self.plant.registers(self._boundary)

    def refusal(self, name: str, parameters: Mapping[str, int]) -> str:
        return super().refusal(name, parameters) or self.plant.refusal(_set_point(parameters))

    def order(self, name: str, parameters: Mapping[str, int]) -> None:
        self.plant.plan(_set_point(parameters))


def _set_point(parameters: Mapping[str, int]) -> SetPoint:
    return SetPoint(parameters["power_w"], parameters["from_ms"], parameters["until_ms"])


@dataclass(frozen=True)
class UnsignedDevice:
    """A battery's own line to its aggregator `org`, which alone gets what it measures and commands it."""

    name: str
    did: str
    protocol: str
    org: str
    plant: BatteryPlant
    start_ms: int
    """Market time at which the plant began."""

    def simulator(self, isp_seconds: int) -> DeviceSimulator:
        """What the protocol's simulator is given."""
        return DeviceSimulator(self.name, PlantModel(self.start_ms, plant=self.plant, isp_ms=isp_seconds * 1000))


@dataclass(frozen=True)
class Park:
    """One organisation's devices on one protocol. `folder` is the data folder; keys are made of `seed`."""

    org: str
    devices: Sequence[UnsignedDevice]
    simulators: Sequence[DeviceSimulator]
    """In the order of the devices."""
    plan: Plan
    folder: Path
    seed: str
