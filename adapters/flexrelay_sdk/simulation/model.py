"""What a simulated device is inside: physics in whole numbers, stepped by one tick, and the commands in force.

The same seed, profile and commands give the same readings, whatever the protocol and however often it is asked.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from flexrelay_sdk.vocabulary import LIMIT_POWER, SET_POWER, SWITCH

TICK_MS = 1_000
"""Powers are constant for a tick."""
_TICK_S = TICK_MS // 1_000


class Series:
    """A profile's series from `start_ms` on, repeated."""

    def __init__(self, values: tuple[int, ...], step_s: int, start_ms: int) -> None:
        self._values = values
        self._step_ms = step_s * 1000
        self._start_ms = start_ms

    @property
    def most(self) -> int:
        """The largest magnitude in it."""
        return max(map(abs, self._values))

    def at(self, now_ms: int) -> int:
        return self._values[(now_ms - self._start_ms) // self._step_ms % len(self._values)]

    def until(self, now_ms: int) -> int:
        """When the value of `now_ms` ends."""
        return now_ms + self._step_ms - (now_ms - self._start_ms) % self._step_ms


@dataclass(frozen=True, slots=True)
class Order:
    """A command in force over [from_ms, until_ms)."""

    name: str
    parameters: Mapping[str, int]

    def holds(self, now_ms: int) -> bool:
        return self.parameters["from_ms"] <= now_ms < self.parameters["until_ms"]


@dataclass(slots=True)
class Energy:
    """Registers of what flowed, J."""

    import_j: int = 0
    export_j: int = 0

    def add(self, power_w: int, ticks: int = 1) -> None:
        if power_w >= 0:
            self.import_j += power_w * _TICK_S * ticks
        else:
            self.export_j -= power_w * _TICK_S * ticks


@dataclass
class Model(ABC):
    """`start_ms` is the device's first instant; `ramp_w` how much its power can change in a tick under command."""

    kind: ClassVar[str]
    commands: ClassVar[frozenset[str]] = frozenset({SET_POWER, LIMIT_POWER, SWITCH})

    start_ms: int
    rated_w: int = 10_000
    ramp_w: int = 10**9
    energy: Energy = field(default_factory=Energy)
    power_w: int = 0
    _orders: list[Order] = field(default_factory=list)
    _now_ms: int = -1

    def __post_init__(self) -> None:
        if self.rated_w <= 0 or self.ramp_w <= 0:
            raise ValueError(f"a {self.kind} needs rated_w and ramp_w above zero")
        self._now_ms = self.start_ms

    @property
    def now_ms(self) -> int:
        """The instant up to which it has lived."""
        return self._now_ms

    def refusal(self, name: str, parameters: Mapping[str, int]) -> str:
        """Why it does not do a command of the vocabulary, "" when it does."""
        if name not in self.commands:
            return f"a {self.kind} does not take {name}"
        if name == SET_POWER and not self.least_w <= parameters["power_w"] <= self.most_w:
            return f"power_w must be from {self.least_w} to {self.most_w} W"
        return ""

    def order(self, name: str, parameters: Mapping[str, int]) -> None:
        """Take a command that `refusal` has nothing against."""
        self._orders = [order for order in self._orders if order.parameters["until_ms"] > self._now_ms]
        self._orders.append(Order(name, dict(parameters)))

    def release(self) -> None:
        """Forget every command: what a controller does that switches its control off before the window is over."""
        self._orders.clear()

    def advance(self, until_ms: int) -> None:
        """Live on, tick by tick, or in one stride where every tick would be as the last; going back is nothing."""
        while self._now_ms + TICK_MS <= until_ms:
            before_w = self.power_w
            self._tick()
            self._now_ms += TICK_MS
            if self.power_w == before_w and self.still():
                ticks = (min(until_ms, self._unchanged_until()) - self._now_ms) // TICK_MS
                if ticks > 0:
                    self.energy.add(self.power_w, ticks)
                    self._now_ms += ticks * TICK_MS

    def registers(self) -> dict[str, int]:
        """As the device's meter shows them now."""
        return {"import_j": self.energy.import_j, "export_j": self.energy.export_j, "power_w": self.power_w}

    @property
    @abstractmethod
    def least_w(self) -> int:
        """The lowest power it can have."""

    @property
    @abstractmethod
    def most_w(self) -> int: ...

    @abstractmethod
    def wanted_w(self, now_ms: int) -> int:
        """What it would do by itself."""

    def still(self) -> bool:
        """Whether a tick of the present power changes nothing inside but the registers."""
        return False

    def input(self) -> Series | None:
        """The series that it follows."""
        return None

    def settle(self, power_w: int) -> int:
        """What of `power_w` its physics allow in this tick; takes the tick's effect."""
        return power_w

    def _unchanged_until(self) -> int:
        """The first instant at which its series or a command may say something else; now, when the last tick's have
        ended already."""
        now_ms, last_ms = self._now_ms, self._now_ms - TICK_MS
        series = self.input()
        ends = [series.until(last_ms)] if series is not None else []
        for order in self._orders:
            ends += [at for at in (order.parameters["from_ms"], order.parameters["until_ms"]) if at > last_ms]
        return max(now_ms, min(ends, default=1 << 62))

    def _tick(self) -> None:
        now_ms = self._now_ms
        wanted_w = self.wanted_w(now_ms)
        orders = [order for order in self._orders if order.holds(now_ms)]
        if orders:
            wanted_w = _commanded(wanted_w, orders[-1])
        wanted_w = max(self.least_w, min(self.most_w, wanted_w))
        change_w = max(-self.ramp_w, min(self.ramp_w, wanted_w - self.power_w))
        self.power_w = self.settle(self.power_w + change_w)
        self.energy.add(self.power_w)


def _commanded(wanted_w: int, order: Order) -> int:
    parameters = order.parameters
    if order.name == SET_POWER:
        return parameters["power_w"]
    if order.name == LIMIT_POWER:
        return max(parameters["min_power_w"], min(parameters["max_power_w"], wanted_w))
    return wanted_w if parameters["on"] else 0
