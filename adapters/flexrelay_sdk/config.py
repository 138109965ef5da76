"""Base of every adapter's configuration: frozen, nothing unknown, and errors that begin with the field's path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A part of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AdapterConfig(Section):
    """One adapter's whole configuration; `name` is the one under which the gateway's configuration names it."""

    name: str

    @classmethod
    def from_section(cls, name: str, section: Mapping[str, Any]) -> Self:
        """For an `AdapterFactory`. Raises ValueError whose text begins with the first field's path and names every
        other that is wrong; no values in it."""
        try:
            return cls.model_validate({"name": name, **section})
        except ValidationError as error:
            raise ValueError("; ".join(problems(error))) from None


def problems(error: ValidationError) -> list[str]:
    """One line for each key that is wrong, its path first; no values in it.

    A list that is short only because its items are wrong is not named beside them.
    """
    details = error.errors(include_url=False, include_input=False)
    above = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
    lines = []
    for detail in details:
        place = detail["loc"]
        if detail["type"] == "too_short" and place in above:
            continue
        where, text = ".".join(map(str, place)), detail["msg"].removeprefix("Value error, ")
        match detail["type"]:
            case "missing":
                lines.append(f"{where} is missing")
            case "extra_forbidden":
                lines.append(f"{where} is not a known key")
            case _:
                lines.append(f"{where}: {text}" if where else text)
    return lines


def below(folder: Path, path: Path | None) -> Path | None:
    """`path` as it is meant in a configuration file of `folder`; None stays None."""
    return None if path is None else folder / path
