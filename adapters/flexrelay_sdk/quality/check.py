"""Whether an adapter is what its `quality.toml` says: what a machine can see is looked at, not believed."""

from collections.abc import Iterable
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from flexrelay_sdk.abilities import abilities
from flexrelay_sdk.frame import Decoded, DecodeError, Frame
from flexrelay_sdk.port import AdapterFactory
from flexrelay_sdk.quality.installed import SIMULATORS, package_of
from flexrelay_sdk.quality.readme import samples
from flexrelay_sdk.quality.scale import Level, Rule, read_declaration, rules


class _Named(Protocol):
    @property
    def value(self) -> str: ...


class Contract(Protocol):
    """A subclass of `flexrelay_sdk.testkit.AdapterContract`."""

    @classmethod
    def kept(cls) -> Iterable[_Named]: ...


_UNTESTED = "a contract does not test it (flexrelay_sdk.testkit has one for each ability)"


class NoNativeCodec:
    """Stands for the gateway's codec of signed readings where none is at hand."""

    def decode(self, frame: Frame) -> Decoded:
        raise DecodeError("malformed", "signed readings are decoded by a gateway")


def violations(name: str, factory: AdapterFactory, contracts: Iterable[type[Contract]]) -> list[str]:
    """What is not as declared, in words; empty when all is. `name` is the entry point's; a promise counts as kept when
    every one of `contracts` has its tests."""
    folder = files(package_of(factory))
    declared = read_declaration(folder)
    if declared is None:
        return [f"{name}: there is no quality.toml in {folder}"]
    kept = [{promise.value for promise in contract.kept()} for contract in contracts]
    promised: set[str] = set.intersection(*kept) if kept else set()
    able = {ability.value for ability in abilities(factory)}
    found = []
    for rule in rules():
        if rule.id in declared.done:
            problem = _problem(rule, name, factory, folder, promised, able)
            if problem:
                found.append(f"{name}: {rule.id} is declared done, but {problem}")
        elif rule.id in declared.exempt and rule.id in (promised if rule.by == "promise" else able):
            found.append(f"{name}: {rule.id} is declared exempt, but it is there")
        elif rule.by == "ability" and rule.id in able and rule.id not in promised:
            found.append(f"{name}: its class has the ability {rule.id}, but {_UNTESTED}")
    if declared.reached is not Level[declared.level.upper()]:
        missing = [rule.id for rule in rules() if rule.id not in declared.done and rule.id not in declared.exempt]
        found.append(
            f"{name} calls itself {declared.level}; its rules give {declared.reached.word} "
            f"(neither done nor exempt: {', '.join(missing) or 'nothing'})"
        )
    return found


def _problem(
    rule: Rule, name: str, factory: AdapterFactory, folder: Traversable, promised: set[str], able: set[str]
) -> str:
    if rule.by == "promise":
        return "" if rule.id in promised else "a contract leaves it out"
    if rule.by == "ability":
        if rule.id not in able:
            return "its class has no such method"
        return "" if rule.id in promised else _UNTESTED
    if rule.by == "check":
        return _CHECKS[rule.id](name, factory, folder)
    return ""


def _config_named_errors(name: str, factory: AdapterFactory, folder: Traversable) -> str:
    section = {**next(iter(samples(folder).values())), "no_such_field": 1}
    try:
        factory("sample", section, Path(), NoNativeCodec())
    except ValueError as error:
        return "" if str(error).startswith("no_such_field") else f"an unknown field is told as {str(error)[:80]!r}"
    return "an unknown field is taken"


def _readme_sample(name: str, factory: AdapterFactory, folder: Traversable) -> str:
    try:
        for sample, section in samples(folder).items():
            factory(sample, section, Path(), NoNativeCodec())
    except ValueError as error:
        return f"its sample is refused: {error}"
    return ""


def _typed(name: str, factory: AdapterFactory, folder: Traversable) -> str:
    top = files(package_of(factory).partition(".")[0])
    return "" if (top / "py.typed").is_file() else f"{top} has no py.typed"


def _simulator(name: str, factory: AdapterFactory, folder: Traversable) -> str:
    known = {point.name for point in entry_points(group=SIMULATORS)}
    return "" if name in known else f"the group {SIMULATORS} has no {name}"


_CHECKS = {
    "config-named-errors": _config_named_errors,
    "readme-sample": _readme_sample,
    "typed": _typed,
    "simulator": _simulator,
}
