"""A simulated device as a SunSpec device: what it measures in registers, what is written to them as its commands.

| kind | models | obeys |
|---|---|---|
| meter | 203 | nothing |
| PV inverter | 701, 702, 704, 123 | WMaxLimPct, WSet, Conn |
| battery | 701, 702, 704, 123, 713 | WMaxLimPct, WSet, Conn |
| EV charger | 701, 702, 704, 123, 713 | WSet, Conn: no model limits what is drawn |
| heat pump | 701, 123 | Conn |
"""

import itertools
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from flexrelay_adapters.modbus.sunspec.layout import Layout
from flexrelay_sdk.simulation import DeviceSimulator, Plan
from flexrelay_sdk.vocabulary import LIMIT_POWER, SET_POWER, SWITCH

Refusal = Literal["address", "value", "deaf"]
"""Why a write is not done: no such writable point, a value that the device does not do, no answer at all."""

_FOR_EVER_MS: Final = 10**13
_UNLIMITED_W: Final = 10**9
_KINDS: Final[Mapping[str, Literal["meter", "inverter", "battery"]]] = {
    "meter": "meter", "pv": "inverter", "battery": "battery", "ev_charger": "battery", "heat_pump": "inverter",
}  # fmt: skip
_MODELS: Final[Mapping[str, tuple[int, ...]]] = {
    "meter": (1, 203),
    "pv": (1, 701, 702, 704, 123),
    "battery": (1, 701, 702, 704, 123, 713),
    "ev_charger": (1, 701, 702, 704, 123, 713),
    "heat_pump": (1, 701, 123),
}


class _Control(NamedTuple):
    """A function of the device: the points that belong to it, and the one that ends it after so many seconds."""

    command: str
    model: int
    names: tuple[str, ...]
    timer: str


_CONTROLS: Final = (
    _Control(LIMIT_POWER, 704, ("WMaxLimPctEna", "WMaxLimPct", "WMaxLimPctEnaRvrt"), "WMaxLimPctRvrtTms"),
    _Control(SET_POWER, 704, ("WSetEna", "WSetMod", "WSet", "WSetEnaRvrt"), "WSetRvrtTms"),
    _Control(SWITCH, 123, ("Conn",), "Conn_RvrtTms"),
)


class _Order(NamedTuple):
    command_id: str
    parameters: Mapping[str, int]


class SunSpecDevice:
    """`measure` and `write` change the registers; `plan` tells market time, in which the timers run."""

    def __init__(self, simulator: DeviceSimulator, serial: str, plan: Plan) -> None:
        self.simulator = simulator
        self.serial = serial
        self.layout = Layout(_MODELS[simulator.kind])
        self.fresh = False
        """Whether nobody has read the last sample."""
        self._plan = plan
        self.commands = 0
        """How often a function was switched on or off."""
        self._orders: dict[str, _Order] = {}
        """What is in force, the oldest first."""
        self._ids = itertools.count(1)
        model = simulator.model
        series = model.input()
        most_w = series.most if simulator.kind == "meter" and series is not None else model.rated_w
        self._watts = _exponent(most_w, 0)
        self._amperes = _exponent(most_w * 1000 // 180, -3)
        self._describe()
        self._show(simulator.model.registers())

    @property
    def sunspec(self) -> Literal["meter", "inverter", "battery"]:
        """As the adapter's configuration calls it."""
        return _KINDS[self.simulator.kind]

    @property
    def controllable(self) -> bool:
        return self.simulator.kind != "meter"

    def measure(self, now_ms: int) -> None:
        """The registers of an instant (market time, UTC ms)."""
        self._end_timers(now_ms)
        self._show(self.simulator.sample(now_ms).registers)
        self.fresh = True

    def _show(self, registers: Mapping[str, int]) -> None:
        layout = self.layout
        imported, exported = registers["import_j"] // 3600, registers["export_j"] // 3600
        if self.simulator.kind == "meter":
            layout.set(203, "W", _scaled(registers["power_w"], self._watts))
            layout.set(203, "TotWhImp", imported % 2**32)
            layout.set(203, "TotWhExp", exported % 2**32)
            layout.set(203, "PhV", registers["voltage_mv"] // 10)
            layout.set(203, "A", _scaled(registers["current_ma"], self._amperes + 3))
        else:
            layout.set(701, "W", _scaled(-registers["power_w"], self._watts))
            layout.set(701, "TotWhAbs", imported)
            layout.set(701, "TotWhInj", exported)
        if "soc_permille" in registers:
            layout.set(713, "SoC", registers["soc_permille"])

    def write(self, address: int, values: list[int]) -> Refusal | None:
        """Registers are written; None: it is done."""
        now_ms = self._plan.now()
        self._end_timers(now_ms)
        touched = self.layout.touched(address, len(values))
        if not touched or not all(
            each.writable and self.layout.get(each.model, each.name) is not None for each in touched
        ):
            return "address"
        before = list(self.layout.registers)
        self.layout.write(address, values)
        names = {(each.model, each.name) for each in touched}
        for control in _CONTROLS:
            if names & {(control.model, name) for name in (*control.names, control.timer)}:
                refusal = self._control(control, now_ms)
                if refusal is not None:
                    self.layout.registers[:] = before
                    return refusal
                self.commands += (control.model, control.names[0]) in names
        return None

    def _control(self, control: _Control, now_ms: int) -> Refusal | None:
        told = self._told(control)
        others = {name: order for name, order in self._orders.items() if name != control.command}
        if told is None:
            if control.command in self._orders:
                self._take(others)
            return None
        lasts_s = self.layout.get(control.model, control.timer) or 0
        until_ms = now_ms + (lasts_s * 1000 * self._plan.rate if lasts_s else _FOR_EVER_MS)
        order = _Order(
            f"modbus-{next(self._ids)}", {**told, "from_ms": self.simulator.model.now_ms, "until_ms": until_ms}
        )
        answer = self.simulator.obey(order.command_id, control.command, order.parameters)
        if answer is None:
            return "deaf"
        if answer.state == "failed":
            return "value"
        if self.simulator.fault != "silent":
            self._take({**others, control.command: order})
        return None

    def _told(self, control: _Control) -> dict[str, int] | None:
        """A function's parameters as the registers tell them, None when it is off."""
        get = self.layout.get
        if control.command == SWITCH:
            return {"on": 0} if get(123, "Conn") == 0 else None
        if get(704, control.names[0]) != 1:
            return None
        if control.command == SET_POWER:
            return {"power_w": -(get(704, "WSet") or 0)} if get(704, "WSetMod") == 1 else None
        most_w = (get(702, "WMax") or 0) * 10**self._watts
        return {"min_power_w": -(most_w * (get(704, "WMaxLimPct") or 0) // 10_000), "max_power_w": _UNLIMITED_W}

    def _take(self, orders: Mapping[str, _Order]) -> None:
        """The model does these and nothing else; of several the newest counts."""
        self._orders = dict(orders)
        self.simulator.model.release()
        for name, order in self._orders.items():
            self.simulator.model.order(name, order.parameters)

    def _end_timers(self, now_ms: int) -> None:
        over = [name for name, order in self._orders.items() if order.parameters["until_ms"] <= now_ms]
        for name in over:
            del self._orders[name]  # the model knows the window itself
            if name == SWITCH:
                self.layout.set(123, "Conn", 1)
            else:
                self.layout.set(704, "WSetEna" if name == SET_POWER else "WMaxLimPctEna", 0)

    def _describe(self) -> None:
        """What never changes, and what is off at first."""
        layout, kind = self.layout, self.simulator.kind
        for name, text in (("Mn", "flexrelay"), ("Md", f"simulated {kind}"), ("SN", self.serial)):
            layout.set(1, name, text)
        if kind == "meter":
            for name, value in (("W_SF", self._watts), ("TotWh_SF", 0), ("V_SF", -2), ("A_SF", self._amperes)):
                layout.set(203, name, value)
            return
        for name, value in (("W_SF", self._watts), ("TotWh_SF", 0), ("InvSt", 3), ("ConnSt", 1), ("Alrm", 0)):
            layout.set(701, name, value)
        layout.set(123, "Conn", 1)
        layout.set(123, "Conn_RvrtTms", 0)
        rated = self.simulator.model.rated_w // 10**self._watts
        if kind != "heat_pump":
            for name, value in (("W_SF", self._watts), ("WMaxRtg", rated), ("WMax", rated)):
                layout.set(702, name, value)
            for name in ("WSet_SF", "WSetEna", "WSetMod", "WSet", "WSetEnaRvrt", "WSetRvrtTms"):
                layout.set(704, name, 0)
        if kind in ("pv", "battery"):
            layout.set(704, "WMaxLimPct_SF", -2)
            layout.set(704, "WMaxLimPct", 10_000)
            for name in ("WMaxLimPctEna", "WMaxLimPctEnaRvrt", "WMaxLimPctRvrtTms"):
                layout.set(704, name, 0)
        if kind in ("battery", "ev_charger"):
            layout.set(713, "Pct_SF", -1)


def _exponent(most: int, least: int) -> int:
    """The smallest power of ten from `least` on with which a magnitude fits into 16 bits."""
    exponent = least
    while most > 32_767 * 10 ** (exponent - least):
        exponent += 1
    return exponent


def _scaled(value: int, exponent: int) -> int:
    """Toward zero, and no more than 16 bits hold."""
    whole: int = abs(value) // 10**exponent
    return max(-32_767, min(32_767, whole if value >= 0 else -whole))
