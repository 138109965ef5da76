"""Commands that wait for their device's result, and what is sent of them. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from flexrelay_adapters.iotagent.config import CommandMapping
from flexrelay_adapters.iotagent.dialect import Dialect, Result, Told
from flexrelay_adapters.mqtt.commands import Waiting
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.mapping.units import units_of

_TRIED_MS: Final = 7 * 86_400_000
"""So long an end is meant for a device."""


@dataclass(slots=True)
class Pending:
    """A command under way. `name` is its name on the wire; `polled` is whether the device fetches it."""

    waiting: Waiting
    name: str
    payload: bytes
    failed: re.Pattern[str]
    polled: bool
    sent: bool = False
    single: bool = False
    """One value, which tells the device no window."""
    end: bool = False
    """It ends what went out before; its command is the one that is over, or the older one that rules again."""

    def is_due(self, now_ms: int) -> bool:
        """Whether a device that asks may have it."""
        command = self.waiting.command
        return command.expires_at > now_ms and (not self.single or command.begins_at <= now_ms)

    def verdict(self, text: str) -> tuple[CommandState, str]:
        """What the device's result says."""
        state = CommandState.FAILED if self.failed.search(text) else CommandState.ACKED
        return state, text[:500]


def payload_of(command: Command, mapping: CommandMapping, device: str, dialect: Dialect) -> bytes:
    """The command in the device's words."""
    return dialect.command(device, mapping.name or command.name, _told(command, mapping))


class Ends:
    """What is sent when single values are over. A device that fetches its commands finds it there however late it
    asks, so an end stays until it is answered or a newer command takes its place."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[Pending, list[CommandUpdate], Command | None]] = {}
        """By the command that is over: its end, what is told of it, and which older command rules again."""

    def pending(
        self, command: Command, before: Command | None, mapping: CommandMapping, dialect: Dialect, *, polled: bool
    ) -> Pending:
        """The same one each time, unless the older command's time is over too by now."""
        found = self._under_way.get(command.command_id)
        if found is None or found[2] != before:
            told: list[CommandUpdate] = []

            async def note(update: CommandUpdate) -> None:
                told.append(update)

            single = mapping.value
            assert single is not None and single.revert is not None
            again = before or replace(
                command, parameters={single.parameter: single.revert}, expires_at=command.expires_at + _TRIED_MS
            )
            payload = payload_of(again, mapping, command.credential.partition("/")[2], dialect)
            name = mapping.name or command.name
            pending = Pending(Waiting(again, note), name, payload, re.compile(mapping.failed), polled, end=True)
            found = self._under_way[command.command_id] = pending, told, before
        return found[0]

    def over(self, command: Command) -> None:
        """It was answered. Raises ValueError when the device refuses, ConnectionError when a newer command came."""
        _, told, _ = self._under_way.pop(command.command_id, (None, (), None))
        if not told or told[-1].state is CommandState.EXPIRED:
            raise ConnectionError(f"a newer {command.name} goes out to {command.credential}")
        if told[-1].state is CommandState.FAILED:
            raise ValueError(f"the device refuses its end: {told[-1].detail}")

    def supersede(self, credential: str, name: str) -> list[Pending]:
        """Those of a device and name (on the wire) that are not answered: a newer command goes out."""
        mine = {
            command_id: pending
            for command_id, (pending, _, _) in self._under_way.items()
            if pending.name == name and pending.waiting.command.credential == credential
        }
        for command_id in mine:
            del self._under_way[command_id]
        return list(mine.values())


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
    """Whose result it is: the command whose id it names, else the one that was sent first under this name; nobody's
    when it names another command, which is over."""
    candidates = [each for each in pendings if each.sent and each.name == result.command]
    for each in candidates:
        if each.waiting.command.command_id in result.text:
            return each
    first = candidates[0] if candidates else None
    return None if first is None or _names_another(first.waiting.command.command_id, result.text) else first


def _names_another(command_id: str, text: str) -> bool:
    """Whether an id of the same make (`<kind>-<so many letters and digits>`), but this one, stands there."""
    kind, dash, rest = command_id.rpartition("-")
    return bool(dash) and re.search(rf"{re.escape(kind)}-[0-9A-Za-z]{{{len(rest)}}}(?![0-9A-Za-z])", text) is not None
