"""What devices measure and what they are told, the same words on every protocol.

Measured: the registers of `flexrelay_schemas.reading.REGISTERS`. Told: the commands here. Every command has a window
[from_ms, until_ms) of market time, outside of which the device does as if it had not come; where windows overlap the
newest command counts. Powers are the device's own, positive = withdrawal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flexrelay_schemas.reading import REGISTERS as REGISTERS
from flexrelay_sdk.command import Command

WINDOW: Final = ("from_ms", "until_ms")

SET_POWER: Final = "set_power"
"""`power_w`: hold this power."""
LIMIT_POWER: Final = "limit_power"
"""`min_power_w` ≤ power ≤ `max_power_w`: a §14a limit of withdrawal, a curtailment of feed-in."""
SWITCH: Final = "switch"
"""`on`: 1 or 0; off means no power in either direction."""

TOLERANCE_W: Final = 50
TOLERANCE_PERMILLE: Final = 50
"""A power counts as held within 50 W or 5 % of it, whichever is more."""


@dataclass(frozen=True, slots=True)
class CommandKind:
    """A command of the vocabulary. `parameters` besides the window; `shown(parameters, power_w)` is whether a power
    measured in the window shows that the device does it."""

    name: str
    parameters: tuple[str, ...]
    shown: Callable[[Mapping[str, int], int], bool]


def _near(wanted_w: int, power_w: int) -> bool:
    return abs(power_w - wanted_w) <= max(TOLERANCE_W, abs(wanted_w) * TOLERANCE_PERMILLE // 1000)


def _within(parameters: Mapping[str, int], power_w: int) -> bool:
    least, most = parameters["min_power_w"], parameters["max_power_w"]
    return least <= power_w <= most or _near(least, power_w) or _near(most, power_w)


COMMANDS: Final[Mapping[str, CommandKind]] = {
    kind.name: kind
    for kind in (
        CommandKind(SET_POWER, ("power_w",), lambda parameters, power_w: _near(parameters["power_w"], power_w)),
        CommandKind(LIMIT_POWER, ("min_power_w", "max_power_w"), _within),
        # an "on" is a permission, which no power contradicts; so none shows it either
        CommandKind(SWITCH, ("on",), lambda parameters, power_w: not parameters["on"] and _near(0, power_w)),
    )
}


def check(name: str, parameters: Mapping[str, int]) -> str:
    """Why these are no command of the vocabulary, "" when they are one."""
    kind = COMMANDS.get(name)
    if kind is None:
        return f"unknown command {name[:40]!r}; known are {', '.join(sorted(COMMANDS))}"
    wanted = {*kind.parameters, *WINDOW}
    if set(parameters) != wanted:
        return f"{name} takes {', '.join(sorted(wanted))}; given are {', '.join(sorted(parameters))[:200] or 'none'}"
    if parameters["until_ms"] <= parameters["from_ms"]:
        return "until_ms must be after from_ms"
    if name == LIMIT_POWER and parameters["min_power_w"] > parameters["max_power_w"]:
        return "min_power_w is more than max_power_w"
    if name == SWITCH and parameters["on"] not in (0, 1):
        return "on is 1 or 0"
    return ""


def confirms(command: Command, observed_at: int, registers: Mapping[str, int]) -> bool:
    """Whether a reading of the commanded device shows that it does what it was told.

    `power_w` is an average up to `observed_at` (market time, UTC ms), so a reading at the window's start still tells of
    the time before and does not count; one at its end does.
    """
    if check(command.name, command.parameters):
        return False
    power_w = registers.get("power_w")
    if power_w is None or not command.parameters["from_ms"] < observed_at <= command.parameters["until_ms"]:
        return False
    return COMMANDS[command.name].shown(command.parameters, power_w)
