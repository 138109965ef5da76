"""Adapters of a gateway: made by the entry points of the group `flexrelay.adapters`; which of them commands devices."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flexrelay.config import ConfigError
from flexrelay.ingest import NativeCodec
from flexrelay_sdk import Adapter, AdapterFactory, Command, CommandState, CommandTarget, CommandUpdate
from flexrelay_sdk.clock import wall_ms


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


Credentials = Callable[[str], Sequence[tuple[str, str]]]
"""DID → the (protocol, credential) pairs that it is bound to at this gateway, the first one first."""


def command_target(org: str, adapters: Mapping[str, Adapter], credentials: Credentials | None = None) -> CommandTarget:
    """Hands each command to the adapter that speaks the device's protocol; see `CommandRouter`."""
    return CommandRouter(org, adapters, credentials or (lambda did: ()))


class CommandRouter:
    """`CommandTarget` over a gateway's adapters.

    A device that is bound to a protocol is commanded there, under the credential of that binding; one that is bound to
    none (its name on every transport is its DID's scid) by the first adapter that commands devices. Where no adapter
    can, the command ends as failed and says why.
    """

    def __init__(self, org: str, adapters: Mapping[str, Adapter], credentials: Credentials) -> None:
        self._org = org
        self._adapters = adapters
        self._credentials = credentials

    @property
    def can_command(self) -> bool:
        return bool(self._targets())

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        targets = self._targets()
        bindings = self._credentials(command.did)
        if not targets:
            detail = f"no adapter of {self._org} commands devices: give one `commands` and `results`"
        elif not bindings:
            return await targets[0][1].execute(command, on_update)
        else:
            for protocol, credential in bindings:
                for spoken, target in targets:
                    if spoken == protocol:
                        return await target.execute(replace(command, credential=credential), on_update)
            spoken_here = ", ".join(sorted({protocol for protocol, _ in targets}))
            wanted = ", ".join(sorted({protocol for protocol, _ in bindings}))
            detail = f"the device is bound to {wanted}; adapters of {self._org} command over {spoken_here}"
        await on_update(CommandUpdate(command.command_id, CommandState.FAILED, wall_ms(), detail))
        return None

    def _targets(self) -> list[tuple[str, CommandTarget]]:
        return [
            (adapter.protocol, adapter)
            for adapter in self._adapters.values()
            if isinstance(adapter, CommandTarget) and adapter.can_command
        ]
