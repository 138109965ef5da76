"""Commands that wait for their device's result, and what is sent of them. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from flexrelay_adapters.iotagent.config import CommandMapping
from flexrelay_adapters.iotagent.dialect import Dialect, Result, Told
from flexrelay_adapters.mqtt.commands import Waiting
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.mapping.units import units_of


@dataclass(slots=True)
class Pending:
    """A command under way. `name` is its name on the wire; `polled` is whether the device fetches it."""

    waiting: Waiting
    name: str
    payload: bytes
    failed: re.Pattern[str]
    polled: bool
    sent: bool = False

    def verdict(self, text: str) -> tuple[CommandState, str]:
        """What the device's result says."""
        state = CommandState.FAILED if self.failed.search(text) else CommandState.ACKED
        return state, text[:500]


def payload_of(command: Command, mapping: CommandMapping, device: str, dialect: Dialect) -> bytes:
    """The command in the device's words."""
    return dialect.command(device, mapping.name or command.name, _told(command, mapping))


def _told(command: Command, mapping: CommandMapping) -> Told:
    single = mapping.value
    if single is None:
        return {**command.parameters, "id": command.command_id, "expires_at": command.expires_at}
    value = command.parameters[single.parameter]
    if single.unit is None:
        return value
    number = Decimal(-value if single.negate else value) / units_of("power_w")[single.unit]
    return int(number) if number == int(number) else number.normalize()


def asked(pendings: Sequence[Pending], result: Result) -> Pending | None:
    """Whose result it is: the command whose id it names, else the one that was sent first under this name."""
    candidates = [each for each in pendings if each.sent and each.name == result.command]
    named = (each for each in candidates if each.waiting.command.command_id in result.text)
    return next(named, candidates[0] if candidates else None)
