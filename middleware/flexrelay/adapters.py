"""Adapters of a gateway: made by the entry points of the group `flexrelay.adapters`; which of them commands devices."""

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flexrelay.config import ConfigError
from flexrelay.founding import wall_ms
from flexrelay.ingest import NativeCodec
from flexrelay_sdk import Adapter, AdapterFactory, Command, CommandState, CommandTarget, CommandUpdate


def load_adapter(org: str, name: str, section: Mapping[str, Any], folder: Path) -> Adapter:
    """The adapter of a configuration section, made by its entry point. Raises ConfigError naming the key."""
    where = f"gateways.{org}.adapters.{name}"
    values = {key: value for key, value in section.items() if key != "type"}
    installed = {point.name: point for point in entry_points(group="flexrelay.adapters")}
    if section["type"] not in installed:
        raise ConfigError(
            f"{where}.type: {section['type']!r} is not installed; there are {', '.join(sorted(installed))}"
        )
    secret = values.pop("password_file", None)
    if secret is not None:
        try:
            values["password"] = (folder / secret).read_text().strip()
        except OSError as error:
            raise ConfigError(f"{where}.password_file: {folder / secret}: {error.strerror}") from None
    make: AdapterFactory = installed[section["type"]].load()
    try:
        adapter = make(name, values, folder, NativeCodec())
        adapter.validate()
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None
    return adapter


def command_target(org: str, adapters: Mapping[str, Adapter]) -> CommandTarget:
    """The adapter that commands devices: the first one that is configured to."""
    for adapter in adapters.values():
        if isinstance(adapter, CommandTarget) and adapter.can_command:
            return adapter
    return _NoTarget(org)


class _NoTarget:
    """Where no adapter commands devices, every command ends as failed and says why."""

    def __init__(self, org: str) -> None:
        self.can_command = False
        self._detail = f"no adapter of {org} commands devices: give one `commands` and `results`"

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        await on_update(CommandUpdate(command.command_id, CommandState.FAILED, wall_ms(), self._detail))
