"""The base of every wire document and argument list: frozen, strict, no unknown fields."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Model(BaseModel):
    """A frozen document; a field that it does not know is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that is written as a JSON list (strict mode would take Python tuples only)."""
