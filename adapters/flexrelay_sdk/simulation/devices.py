"""The five kinds: meter, PV inverter, battery, EV charger, heat pump. Powers in W, positive = withdrawal."""

from dataclasses import dataclass
from typing import ClassVar

from flexrelay_sdk.simulation.model import TICK_MS, Model, Series
from flexrelay_sdk.vocabulary import LIMIT_POWER, SWITCH

_TICK_S = TICK_MS // 1000


@dataclass
class Meter(Model):
    """Shows what flows at a connection, and cannot change it. The voltage falls by 1 mV a watt drawn."""

    kind: ClassVar[str] = "meter"
    commands: ClassVar[frozenset[str]] = frozenset()
    load: Series | None = None

    def input(self) -> Series | None:
        return self.load

    def still(self) -> bool:
        return True

    @property
    def least_w(self) -> int:
        return -(10**9)

    @property
    def most_w(self) -> int:
        return 10**9

    def wanted_w(self, now_ms: int) -> int:
        return self.load.at(now_ms) if self.load is not None else 0

    def registers(self) -> dict[str, int]:
        voltage_mv = max(180_000, min(260_000, 230_000 - self.power_w))
        current_ma = abs(self.power_w) * 1_000_000 // voltage_mv
        return super().registers() | {"voltage_mv": voltage_mv, "current_ma": current_ma}


@dataclass
class PvInverter(Model):
    """Feeds in what the sun gives, up to its rating, unless a limit curtails it."""

    kind: ClassVar[str] = "pv"
    sun: Series | None = None

    def input(self) -> Series | None:
        return self.sun

    def still(self) -> bool:
        return True

    @property
    def least_w(self) -> int:
        return -self.rated_w

    @property
    def most_w(self) -> int:
        return 0

    def wanted_w(self, now_ms: int) -> int:
        return -(self.sun.at(now_ms) if self.sun is not None else 0)

    def settle(self, power_w: int) -> int:
        return max(power_w, self.wanted_w(self.now_ms), -self.rated_w)  # no command makes more sun


@dataclass
class Battery(Model):
    """Idles unless commanded; `efficiency_permille` of what is drawn reaches the store, discharging loses nothing."""

    kind: ClassVar[str] = "battery"
    rated_w: int = 5_000
    capacity_wh: int = 10_000
    soc_permille: int = 500
    efficiency_permille: int = 950

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity_wh <= 0 or not 0 <= self.soc_permille <= 1000 or not 1 <= self.efficiency_permille <= 1000:
            raise ValueError("a battery needs a capacity, a state of charge of 0 to 1000 ‰ and an efficiency")
        self._full = self.capacity_wh * 3600 * 1000  # in J / 1000, so that the efficiency stays exact
        self._stored = self.capacity_wh * 3600 * self.soc_permille

    def still(self) -> bool:
        return self.power_w == 0

    @property
    def least_w(self) -> int:
        return -self.rated_w

    @property
    def most_w(self) -> int:
        return self.rated_w

    def wanted_w(self, now_ms: int) -> int:
        return 0

    def settle(self, power_w: int) -> int:
        if power_w > 0:
            power_w = min(power_w, (self._full - self._stored) // (self.efficiency_permille * _TICK_S))
            self._stored += power_w * _TICK_S * self.efficiency_permille
        else:
            power_w = max(power_w, -(self._stored // (1000 * _TICK_S)))
            self._stored += power_w * _TICK_S * 1000
        return power_w

    def registers(self) -> dict[str, int]:
        return super().registers() | {"soc_permille": self._stored * 1000 // self._full}


@dataclass
class EvCharger(Model):
    """Charges a car while one is there (`presence` 1), at its rating until the car is full; below `least_charge_w` a
    car does not charge at all. Each car comes with `arrival_permille` in its battery."""

    kind: ClassVar[str] = "ev_charger"
    rated_w: int = 11_000
    capacity_wh: int = 50_000
    arrival_permille: int = 300
    least_charge_w: int = 1_380
    presence: Series | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity_wh <= 0 or not 0 <= self.arrival_permille <= 1000:
            raise ValueError("a charger's cars need a capacity and arrive with 0 to 1000 ‰")
        self._full_j = self.capacity_wh * 3600
        self._stored_j = 0
        self._present = False

    def input(self) -> Series | None:
        return self.presence

    def still(self) -> bool:
        return self.power_w == 0

    @property
    def least_w(self) -> int:
        return 0

    @property
    def most_w(self) -> int:
        return self.rated_w

    def wanted_w(self, now_ms: int) -> int:
        present = bool(self.presence.at(now_ms)) if self.presence is not None else False
        if present and not self._present:
            self._stored_j = self._full_j * self.arrival_permille // 1000
        self._present = present
        return self.rated_w if present else 0

    def settle(self, power_w: int) -> int:
        if not self._present or power_w < self.least_charge_w:
            return 0
        power_w = min(power_w, (self._full_j - self._stored_j) // _TICK_S)
        self._stored_j += power_w * _TICK_S
        return power_w

    def registers(self) -> dict[str, int]:
        soc = self._stored_j * 1000 // self._full_j if self._present else 0
        return super().registers() | {"soc_permille": soc}


@dataclass
class HeatPump(Model):
    """Keeps a house warm: on below `low_mc`, off above `high_mc` (milli-degrees Celsius), and on below `frost_mc`
    whatever it is told. The house loses `loss_w_per_k` and stores `capacity_j_per_k`."""

    kind: ClassVar[str] = "heat_pump"
    commands: ClassVar[frozenset[str]] = frozenset({LIMIT_POWER, SWITCH})
    rated_w: int = 3_000
    cop_permille: int = 3_000
    loss_w_per_k: int = 200
    capacity_j_per_k: int = 10_000_000
    low_mc: int = 19_500
    high_mc: int = 21_000
    frost_mc: int = 15_000
    indoor_mc: int = 20_000
    outdoor: Series | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity_j_per_k <= 0 or not self.frost_mc < self.low_mc < self.high_mc:
            raise ValueError("a heat pump needs a house with a heat capacity, and frost_mc < low_mc < high_mc")
        self._on = False
        self._rest_j_mk = 0  # J·mK that do not make a whole millikelvin yet

    @property
    def least_w(self) -> int:
        return 0

    @property
    def most_w(self) -> int:
        return self.rated_w

    def wanted_w(self, now_ms: int) -> int:
        if self.indoor_mc <= self.low_mc:
            self._on = True
        elif self.indoor_mc >= self.high_mc:
            self._on = False
        return self.rated_w if self._on else 0

    def settle(self, power_w: int) -> int:
        if self.indoor_mc < self.frost_mc:
            power_w = self.rated_w
        outdoor_mc = self.outdoor.at(self.now_ms) if self.outdoor is not None else 0
        # heat (J) × 1000 / capacity (J/K) is the change in mK; the remainder is kept, so nothing drifts
        heat_mj = power_w * self.cop_permille - self.loss_w_per_k * (self.indoor_mc - outdoor_mc)
        change_mk, self._rest_j_mk = divmod(heat_mj * _TICK_S + self._rest_j_mk, self.capacity_j_per_k)
        self.indoor_mc += change_mk
        return power_w
