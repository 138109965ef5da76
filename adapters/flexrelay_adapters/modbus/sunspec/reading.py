"""Which points of which models become which registers.

Inverters and DER count what they give to the grid as positive, meters what is imported; flexrelay counts withdrawal.
The first model that a device has, and whose point it implements, counts.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from flexrelay_adapters.modbus.frame import Found
from flexrelay_adapters.modbus.sunspec.models import point, points
from flexrelay_adapters.modbus.values import Span
from flexrelay_sdk.mapping import Unit


class Choice(NamedTuple):
    """A point that a register can come from."""

    model: int
    point: str
    unit: Unit
    negate: bool = False


_INTEGER: Final = (101, 102, 103)
_FLOAT: Final = (111, 112, 113)


def _inverter(name: str, unit: Unit, negate: bool = False) -> tuple[Choice, ...]:
    return tuple(Choice(model, name, unit, negate) for model in (*_INTEGER, *_FLOAT))


def _meter(*names: str, unit: Unit) -> tuple[Choice, ...]:
    return tuple(Choice(m, name, unit) for m in (201, 202, 203, 204, 211, 212, 213, 214) for name in names)


_DER: Final[Mapping[str, tuple[Choice, ...]]] = {
    "power_w": (Choice(701, "W", "W", True), *_inverter("W", "W", True)),
    "export_j": (Choice(701, "TotWhInj", "Wh"), *_inverter("WH", "Wh")),
    "import_j": (Choice(701, "TotWhAbs", "Wh"),),
    "reactive_var": (Choice(701, "Var", "var", True), *_inverter("VAr", "var", True)),
    "voltage_mv": (Choice(701, "LNV", "V"), Choice(701, "LLV", "V"), *_inverter("PhVphA", "V")),
    "current_ma": (Choice(701, "A", "A"), *_inverter("A", "A")),
}
READINGS: Final[Mapping[str, Mapping[str, tuple[Choice, ...]]]] = {
    "inverter": _DER,
    "battery": {
        **_DER,
        "soc_permille": (Choice(713, "SoC", "%"), Choice(802, "SoC", "%"), Choice(124, "ChaState", "%")),
    },
    "meter": {
        "power_w": _meter("W", unit="W"),
        "import_j": _meter("TotWhImp", unit="Wh"),
        "export_j": _meter("TotWhExp", unit="Wh"),
        "reactive_var": _meter("VAR", unit="var"),
        "voltage_mv": _meter("PhV", "PhVphA", unit="V"),
        "current_ma": _meter("A", unit="A"),
    },
}

FLAGS: Final[Mapping[int, tuple[tuple[str, frozenset[int] | None], ...]]] = {
    **{model: (("St", frozenset({7})),) for model in (*_INTEGER, *_FLOAT)},
    701: (("InvSt", frozenset({6})), ("Alrm", None)),
    802: (("State", frozenset({99})),),
}
"""Points that say that something is wrong: the values that do, None: every value but 0. They flag the reading."""


def choices(kind: str, models: Iterable[Found]) -> dict[str, list[tuple[Choice, int]]]:
    """register → the points it can come from on this device, each with its model's address."""
    places = {found.model: found for found in reversed(list(models))}
    chosen: dict[str, list[tuple[Choice, int]]] = {}
    for register, wanted in READINGS[kind].items():
        for choice in wanted:
            found = places.get(choice.model)
            if found is not None and point(choice.model, choice.point).offset < found.length + 2:
                chosen.setdefault(register, []).append((choice, found.address))
    return chosen


def spans_of(kind: str, models: Iterable[Found]) -> list[Span]:
    """What must be read for a device's registers: points, their scale factors, states, and every such model's ID."""
    found = list(models)
    spans = set()
    for chosen in choices(kind, found).values():
        for choice, address in chosen:
            each = point(choice.model, choice.point)
            spans |= {each.span(address), Span("holding", address, 2)}
            if each.scale in points(choice.model):
                spans.add(point(choice.model, each.scale).span(address))
            for name, _ in FLAGS.get(choice.model, ()):
                spans.add(point(choice.model, name).span(address))
    return sorted(spans)
