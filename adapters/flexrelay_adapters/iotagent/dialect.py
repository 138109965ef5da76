"""In what Ultralight and JSON differ. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

Told = Mapping[str, int | str] | int | Decimal
"""What a command tells: parameters by name, or one value."""


class Result(NamedTuple):
    """A device's answer to a command by the command's name."""

    command: str
    text: str


class Dialect(Protocol):
    protocol: str
    """Credentials are bound to devices under this name."""
    level: str
    """First level of its topics."""
    path: str
    """Where its devices send over HTTP."""
    media_type: str

    def groups(self, payload: bytes) -> list[dict[str, Any]]:
        """The groups of measures, by attribute; TimeInstant where a group has its time. Raises DecodeError."""
        ...

    def value(self, payload: bytes) -> Any:
        """A single attribute's value. Raises DecodeError."""
        ...

    def most_groups(self, payload: bytes) -> int:
        """As many as `groups` can give at most; cheap."""
        ...

    def is_result(self, payload: bytes) -> bool:
        """Whether what came where measures come is the answer to a command instead."""
        ...

    def results(self, payload: bytes) -> list[Result]:
        """Raises ValueError for what is no answer."""
        ...

    def command(self, device: str, name: str, told: Told) -> bytes: ...

    def together(self, commands: Sequence[bytes]) -> bytes:
        """Several commands in one answer to a polling device; they have different names."""
        ...
