"""The adapters that are installed: every entry point of the group `flexrelay.adapters`, and what each can do."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable

from flexrelay_sdk.abilities import Ability, abilities
from flexrelay_sdk.port import AdapterFactory
from flexrelay_sdk.quality.scale import Level, read_declaration

GROUP = "flexrelay.adapters"
SIMULATORS = "flexrelay.simulators"


@dataclass(frozen=True)
class Installed:
    """One entry point. `problem` says why it cannot be loaded (an extra is missing); then it has no abilities."""

    name: str
    distribution: str
    version: str
    target: str
    abilities: frozenset[Ability]
    level: Level
    simulator: bool
    problem: str = ""
    factory: AdapterFactory | None = None
    folder: Traversable | None = None


def installed_adapters() -> Iterator[Installed]:
    """By name. An adapter that cannot be loaded is told of, not raised: the others go on."""
    simulators = {point.name for point in entry_points(group=SIMULATORS)}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        yield _look(point, point.name in simulators)


def _look(point: EntryPoint, simulator: bool) -> Installed:
    distribution = point.dist.name if point.dist is not None else ""
    version = point.dist.version if point.dist is not None else ""
    bare = Installed(point.name, distribution, version, point.value, frozenset(), Level.NONE, simulator)
    try:
        factory: AdapterFactory = point.load()
        folder = files(package_of(factory))
        declared = read_declaration(folder)
        return Installed(
            **{
                **vars(bare),
                "abilities": abilities(factory),
                "level": Level.NONE if declared is None else Level[declared.level.upper()],
                "factory": factory,
                "folder": folder,
            }
        )
    except Exception as error:  # whatever a foreign package does on import
        return Installed(**{**vars(bare), "problem": f"{type(error).__name__}: {error}"})


def package_of(factory: AdapterFactory) -> str:
    """The package that a factory is of: where README.md and quality.toml stand."""
    module = import_module(getattr(factory, "__module__", type(factory).__module__))
    return module.__name__ if hasattr(module, "__path__") else (module.__package__ or module.__name__)
