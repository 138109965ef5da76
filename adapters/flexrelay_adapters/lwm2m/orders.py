"""What a command writes to a device's control objects, and when. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flexrelay_adapters.lwm2m.config import CommandConfig
from flexrelay_adapters.lwm2m.formats import Value
from flexrelay_sdk import Command
from flexrelay_sdk.vocabulary import SET_POWER, SWITCH

POWER_CONTROL: Final = "power_control"
RELEASED: Final[Mapping[str, Value]] = {"5850": True, "5851": 100}
"""Object 3312 when nothing is commanded: on, and not dimmed."""


class Unfit(ValueError):
    """The command cannot be said in the device's objects."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Values below an object instance, and what they amount to (`values` of the command's last update). With the path
    "/" the values are of several objects, each by its whole path."""

    path: str
    values: Mapping[str, Value]
    effect: Mapping[str, int]


def plan(command: Command, config: CommandConfig) -> Writing:
    """What a command writes. Raises Unfit.

    `set_power` takes `power_w` (positive = withdrawal) and optionally `from_ms`, `until_ms`: 3310 load control, 3312
    power control, or 3310 with the set point 3308. `switch` takes `on`: 3312. `set_low_battery` takes `soc_permille`
    and `clear_battery_shutdown` nothing: 3411.
    """
    parameters = command.parameters
    match command.name:
        case "set_power" if config.via == "set_point":
            power_w = _power(parameters, -config.rated_w, config.rated_w, "a set point")
            event: dict[str, Value] = {
                f"/3310/{config.instance}/{resource}": value for resource, value in _event(command).items()
            }
            return Writing("/", {**event, f"/3308/{config.instance}/5900": float(power_w)}, {"power_w": power_w})
        case "set_power":
            percent = _percent(parameters, config.rated_w)
            effect = {"power_w": percent * config.rated_w // 100}
            if config.via == POWER_CONTROL:
                path = f"/3312/{config.instance}"
                return Writing(path, {"5850": percent > 0, "5851": percent}, effect)
            return Writing(f"/3310/{config.instance}", {**_event(command), "5827": percent}, effect)
        case "switch" if config.via == POWER_CONTROL:
            on = parameters.get("on", -1)
            if on not in (0, 1):
                raise Unfit("on is 1 or 0")
            return Writing(f"/3312/{config.instance}", {"5850": bool(on)}, {"on": on})
        case "set_low_battery":
            permille = parameters.get("soc_permille", -1)
            if not 0 <= permille <= 1000:
                raise Unfit("soc_permille must be 0 to 1000")
            return Writing(f"/3411/{config.instance}", {"5": permille // 10}, {"soc_permille": permille // 10 * 10})
        case "clear_battery_shutdown":
            return Writing(f"/3411/{config.instance}", {"7": False}, {})
    raise Unfit(f"no object of LwM2M does {command.name[:60]!r}")


def must_end(command: Command, config: CommandConfig) -> bool:
    """Whether the object knows no end of its own: 3312 holds what was written, 3310 has a duration."""
    return config.via == POWER_CONTROL and command.name in (SET_POWER, SWITCH)


def begins_s(command: Command, config: CommandConfig) -> float:
    """The instant, wall-clock UTC seconds, before which it is not written; 0: whenever the device is reached."""
    lead_s = 0.0 if must_end(command, config) else config.lead_s
    return 0.0 if lead_s is None or not command.begins_at else command.begins_at / 1000 - lead_s


def _event(command: Command) -> dict[str, Value]:
    """Event identifier, start and duration of a load control event."""
    from_ms = command.parameters.get("from_ms", 0)
    until_ms = command.parameters.get("until_ms", command.expires_at)
    minutes = max(1, (until_ms - from_ms) // 60_000) if from_ms else 1
    return {"5823": command.command_id, "5824": from_ms // 1000, "5825": minutes}


def _power(parameters: Mapping[str, int], least_w: int, most_w: int, what: str) -> int:
    power_w = parameters.get("power_w")
    if power_w is None:
        raise Unfit("power_w is missing")
    if not least_w <= power_w <= most_w:
        raise Unfit(f"{power_w} W: {what} can say {least_w} to {most_w} W (rated_w) of withdrawal")
    return power_w


def _percent(parameters: Mapping[str, int], rated_w: int) -> int:
    power_w = _power(parameters, 0, rated_w, "load control")
    return (power_w * 100 + rated_w // 2) // rated_w
