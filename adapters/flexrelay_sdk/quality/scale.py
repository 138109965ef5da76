"""The scale as data: levels, the rules that each demands, and what an adapter declares of itself (`quality.toml`)."""

import tomllib
from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from flexrelay_sdk.config import Section

DECLARATION = "quality.toml"
"""In the adapter's package."""


class Level(IntEnum):
    NONE = 0
    BRONZE = 1
    SILVER = 2
    GOLD = 3
    PLATINUM = 4

    @property
    def word(self) -> str:
        return self.name.lower()


LevelName = Literal["none", "bronze", "silver", "gold", "platinum"]


class Rule(Section):
    """What a level demands. `by` says how it is known: a `promise` has tests in the adapter's contract, an `ability` is
    seen in its methods and has tests in its contracts, a `check` looks at the package, `evidence` is named by the
    adapter and judged by people."""

    id: str
    level: LevelName
    by: Literal["promise", "ability", "check", "evidence"]
    text: str
    exempt: bool = False
    """Whether an adapter may leave it out with a reason."""


class Declaration(Section):
    """`quality.toml`: the level, and for each rule where it is shown (`done`) or why it cannot be (`exempt`)."""

    level: LevelName
    done: Mapping[str, Annotated[str, Field(min_length=1)]]
    exempt: Mapping[str, Annotated[str, Field(min_length=8)]] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = {rule.id: rule for rule in rules()}
        for name in (*self.done, *self.exempt):
            if name not in known:
                raise ValueError(f"there is no rule {name!r}; there are {', '.join(known)}")
        for name in self.exempt:
            if name in self.done:
                raise ValueError(f"{name} is both done and exempt")
            if not known[name].exempt:
                raise ValueError(f"nobody is exempt from {name}")
        return self

    @property
    def reached(self) -> Level:
        """The level that its rules give, whatever it calls itself."""
        level = Level.NONE
        for candidate in list(Level)[1:]:
            demanded = [rule.id for rule in rules() if rule.level == candidate.word]
            if any(name not in self.done and name not in self.exempt for name in demanded):
                break
            level = candidate
        return level


@cache
def rules() -> tuple[Rule, ...]:
    """The scale, in its order."""
    text = (files(__package__) / "scale.toml").read_text()
    return tuple(Rule.model_validate(rule) for rule in tomllib.loads(text)["rules"])


def read_declaration(folder: Traversable) -> Declaration | None:
    """What the package in `folder` declares, None when nothing. Raises ValueError naming file and field."""
    file = folder / DECLARATION
    if not file.is_file():
        return None
    try:
        return Declaration.model_validate(tomllib.loads(file.read_text()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from None
