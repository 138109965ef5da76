"""What an adapter can do besides readings, told by the methods that it has: nothing is declared twice."""

import inspect
from collections.abc import Callable
from enum import Enum
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints


class Ability(Enum):
    """An ability is a Protocol of `flexrelay_sdk.port` or `flexrelay_sdk.facts`; READINGS is `Adapter` itself."""

    READINGS = "readings"
    COMMANDS = "commands"
    DISCOVERY = "discovery"
    BACKFILL = "backfill"
    TIME_SYNC = "time_sync"
    FACTS = "facts"


_METHODS: Final[dict[Ability, tuple[str, ...]]] = {
    Ability.READINGS: ("run", "validate", "codec_for", "channels_for", "connected", "endpoint"),
    Ability.COMMANDS: ("execute", "can_command"),
    Ability.DISCOVERY: ("discover",),
    Ability.BACKFILL: ("backfill",),
    Ability.TIME_SYNC: ("sync_time",),
    Ability.FACTS: ("facts",),
}


def abilities(adapter_or_factory: Any) -> frozenset[Ability]:
    """The abilities of an adapter, of its class, or of what a factory says (by its annotation) that it returns.

    Raises TypeError for a factory that does not say which class it returns.
    """
    subject = adapter_or_factory
    if inspect.isroutine(subject):
        subject = _returned(subject)
    return frozenset(ability for ability, names in _METHODS.items() if all(hasattr(subject, name) for name in names))


def _returned(factory: Callable[..., Any]) -> Any:
    hints = get_type_hints(factory)
    returned = hints.get("return")
    if get_origin(returned) in (Union, UnionType):
        returned = next((each for each in get_args(returned) if each is not type(None)), None)
    if not inspect.isclass(returned):
        raise TypeError(f"{factory.__module__}.{factory.__qualname__} must say which class it returns")
    return returned
