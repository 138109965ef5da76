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
        """For an `AdapterFactory`. Raises ValueError whose text begins with the field's path; no values in it."""
        try:
            return cls.model_validate({"name": name, **section})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def below(folder: Path, path: Path | None) -> Path | None:
    """`path` as it is meant in a configuration file of `folder`; None stays None."""
    return None if path is None else folder / path
