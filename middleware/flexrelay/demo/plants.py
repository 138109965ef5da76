"""What the simulated devices measure: a replayed power series, or a battery that obeys set-points. Integers only.

A plant is sampled at interval boundaries: boundary k is the instant start + k × ISP, boundary 0 the start itself.
Power is positive when it is drawn from the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

TICK_S = 60
"""A battery's control step."""


class Plant(Protocol):
    """Registers as the meter of the thing shows them."""

    def registers(self, boundary: int) -> dict[str, int]:
        """Registers at a boundary. Raises IndexError beyond the plant's data."""
        ...


class SeriesPlant:
    """Average powers per ISP in W become energy registers in J by W × seconds, import and export apart."""

    def __init__(
        self, series_w: Sequence[int], *, isp_seconds: int = 900, import_j: int = 0, export_j: int = 0
    ) -> None:
        self._series_w = tuple(series_w)
        self._import_j = tuple(accumulate((max(w, 0) * isp_seconds for w in series_w), initial=import_j))
        self._export_j = tuple(accumulate((max(-w, 0) * isp_seconds for w in series_w), initial=export_j))

    def __len__(self) -> int:
        """The last boundary."""
        return len(self._series_w)

    def registers(self, boundary: int) -> dict[str, int]:
        power_w = self._series_w[boundary - 1] if boundary else 0
        return {"import_j": self._import_j[boundary], "export_j": self._export_j[boundary], "power_w": power_w}


class MeterPlant:
    """The meter before another plant: its energy and power, nothing of what is inside."""

    def __init__(self, behind: Plant) -> None:
        self._behind = behind

    def registers(self, boundary: int) -> dict[str, int]:
        shown = self._behind.registers(boundary)
        return {name: shown[name] for name in ("import_j", "export_j", "power_w")}


@dataclass(frozen=True, slots=True)
class SetPoint:
    """Hold `power_w` from `from_ms` until `until_ms` (market time)."""

    power_w: int
    from_ms: int
    until_ms: int


class BatteryPlant:
    """A battery: rated power, capacity, ramp and efficiency limit what a set-point gets; it idles without one.

    `efficiency_permille` of what is drawn reaches the store; discharging loses nothing. `silent` makes it measure
    nothing of its set-points: it fails without saying so; `fail_at` lets that happen at a market time.
    """

    def __init__(
        self,
        *,
        rated_w: int,
        capacity_wh: int,
        start_ms: int,
        soc_permille: int = 500,
        efficiency_permille: int = 1000,
        ramp_w_per_tick: int | None = None,
        isp_seconds: int = 900,
    ) -> None:
        if isp_seconds % TICK_S or not 0 <= soc_permille <= 1000 or rated_w <= 0 or capacity_wh <= 0:
            raise ValueError("a battery needs a rating, a capacity, a state of charge of 0 to 1000 ‰ and whole ticks")
        self.rated_w = rated_w
        self.capacity_j = capacity_wh * 3600
        self.silent = False
        self._fails_at_ms: int | None = None
        self._start_ms = start_ms
        self._isp_seconds = isp_seconds
        self._stored_permille_j = self.capacity_j * soc_permille  # J × 1000, so that efficiency stays exact
        self._efficiency = efficiency_permille
        self._ramp_w = ramp_w_per_tick if ramp_w_per_tick is not None else rated_w
        self._plan: list[SetPoint] = []
        self._power_w = 0
        self._tick = 0
        self._import_j = self._export_j = 0
        self._samples = [self._sample(0)]

    @property
    def simulated_ms(self) -> int:
        """Market time up to which the battery has lived; set-points act after it."""
        return self._start_ms + self._tick * TICK_S * 1000

    @property
    def soc_permille(self) -> int:
        return self._stored_permille_j // self.capacity_j

    def fail_at(self, market_ms: int) -> None:
        """From this market time on it measures nothing of its set-points, and still says that it does them."""
        self._fails_at_ms = market_ms

    def refusal(self, set_point: SetPoint) -> str:
        """Why it does not take a set-point, "" when it does."""
        if abs(set_point.power_w) > self.rated_w:
            return f"power_w is beyond the rated {self.rated_w} W"
        if set_point.until_ms <= set_point.from_ms:
            return "until_ms is not after from_ms"
        if set_point.until_ms <= self.simulated_ms:
            return "the interval is over"
        return ""

    def plan(self, set_point: SetPoint) -> None:
        """Add a set-point; where several overlap the newest counts."""
        self._plan.append(set_point)

    def registers(self, boundary: int) -> dict[str, int]:
        while len(self._samples) <= boundary:
            before_j = self._import_j - self._export_j
            for _ in range(self._isp_seconds // TICK_S):
                self._step()
            energy_j = self._import_j - self._export_j - before_j
            self._samples.append(self._sample(energy_j // self._isp_seconds))
        return dict(self._samples[boundary])

    def _sample(self, power_w: int) -> dict[str, int]:
        return {
            "import_j": self._import_j,
            "export_j": self._export_j,
            "power_w": power_w,
            "soc_permille": self.soc_permille,
        }

    def _step(self) -> None:
        now_ms = self.simulated_ms
        target_w = 0
        for set_point in self._plan:
            if set_point.from_ms <= now_ms < set_point.until_ms:
                target_w = set_point.power_w
        self._plan = [set_point for set_point in self._plan if set_point.until_ms > now_ms]
        if self.silent or (self._fails_at_ms is not None and now_ms >= self._fails_at_ms):
            target_w = 0
        target_w = max(-self.rated_w, min(self.rated_w, target_w))
        change_w = max(-self._ramp_w, min(self._ramp_w, target_w - self._power_w))
        power_w = self._power_w + change_w
        if power_w > 0:
            room = (self.capacity_j * 1000 - self._stored_permille_j) // (self._efficiency * TICK_S)
            power_w = min(power_w, room)
            self._import_j += power_w * TICK_S
            self._stored_permille_j += power_w * TICK_S * self._efficiency
        else:
            power_w = max(power_w, -(self._stored_permille_j // (1000 * TICK_S)))
            self._export_j += -power_w * TICK_S
            self._stored_permille_j += power_w * TICK_S * 1000
        self._power_w = power_w
        self._tick += 1
