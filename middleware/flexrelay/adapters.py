"""Adapters of a gateway: made by the entry points of the group `flexrelay.adapters`; which of them commands devices."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from flexrelay.config import ConfigError
from flexrelay.ingest import NativeCodec
from flexrelay_sdk import (
    Adapter,
    AdapterFactory,
    Command,
    CommandEnder,
    CommandState,
    CommandTarget,
    CommandUpdate,
)
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
        except UnicodeDecodeError:
            raise ConfigError(f"{where}.password_file: {folder / secret}: not UTF-8") from None
    try:
        make: AdapterFactory = installed[section["type"]].load()
    except ImportError as error:
        raise ConfigError(f"{where}.type: {section['type']!r} needs a package that is not installed: {error}") from None
    try:
        adapter = make(name, values, folder, NativeCodec())
        adapter.validate()
    except ValueError as error:
        raise ConfigError(f"{where}.{error}") from None
    return adapter


Credentials = Callable[[str], Sequence[tuple[str, str]]]
"""DID → the (protocol, credential) pairs that it is bound to at this gateway, the first one first."""


Barred = Callable[[str], str]
"""DID → why it is not commanded any more; "" for one that may be."""


def command_target(
    org: str, adapters: Mapping[str, Adapter], credentials: Credentials | None = None, barred: Barred | None = None
) -> CommandTarget:
    """Hands each command to the adapter that speaks the device's protocol; see `CommandRouter`."""
    return CommandRouter(org, adapters, credentials or (lambda did: ()), barred or (lambda did: ""))


class CommandRouter:
    """`CommandTarget` and `CommandEnder` over a gateway's adapters.

    A device that is bound to a protocol is commanded there, under the credential of that binding; one that is bound to
    none (its name on every transport is its DID's scid) by the first adapter that commands devices. Where no adapter
    can, or the device is suspended or revoked, the command ends as failed and says why; what was sent before is ended
    all the same.
    """

    def __init__(
        self, org: str, adapters: Mapping[str, Adapter], credentials: Credentials, barred: Barred = lambda did: ""
    ) -> None:
        self._org = org
        self._adapters = adapters
        self._credentials = credentials
        self._barred = barred

    @property
    def can_command(self) -> bool:
        return bool(self._targets())

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        found = self._barred(command.did) or self._route(command)
        if isinstance(found, str):
            await on_update(CommandUpdate(command.command_id, CommandState.FAILED, wall_ms(), found))
        else:
            target, told = found
            await target.execute(told, on_update)

    def must_end(self, command: Command) -> bool:
        found = self._route(command)
        return not isinstance(found, str) and isinstance(found[0], CommandEnder) and found[0].must_end(found[1])

    async def end(self, command: Command, before: Command | None = None) -> None:
        """Raises ValueError when no adapter leads to the device any more, and what the adapter raises."""
        found = self._route(command)
        if isinstance(found, str):
            raise ValueError(found)
        target, told = found
        if isinstance(target, CommandEnder):
            await target.end(told, replace(before, credential=told.credential) if before is not None else None)

    def _route(self, command: Command) -> tuple[CommandTarget, Command] | str:
        """The adapter that leads to the device and the command as it gets it, or why there is none."""
        targets = self._targets()
        bindings = self._credentials(command.did)
        if not targets:
            return f"no adapter of {self._org} commands devices: give one `commands` and `results`"
        if not bindings:
            return targets[0][1], command
        for protocol, credential in bindings:
            for spoken, target in targets:
                if spoken == protocol:
                    return target, replace(command, credential=credential)
        spoken_here = ", ".join(sorted({protocol for protocol, _ in targets}))
        wanted = ", ".join(sorted({protocol for protocol, _ in bindings}))
        return f"the device is bound to {wanted}; adapters of {self._org} command over {spoken_here}"

    def _targets(self) -> list[tuple[str, CommandTarget]]:
        return [
            (adapter.protocol, adapter)
            for adapter in self._adapters.values()
            if isinstance(adapter, CommandTarget) and adapter.can_command
        ]
