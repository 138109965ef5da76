"""A device's objects: values by resource path, and who is asked when somebody writes or executes."""

from collections.abc import Callable, Mapping, Sequence

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.formats import Path, Record, Value, path_text
from flexrelay_adapters.lwm2m.formats.tlv import integer, number

OnWrite = Callable[[Mapping[Path, Value]], int]
"""Asked with all values of one write; its code is the answer, and only a 2.xx lets them into the tree. 0: no answer."""


class Tree:
    """`executable` are resources without a value. Types stay those of the first values."""

    def __init__(
        self,
        values: Mapping[Path, Value],
        *,
        executable: Sequence[Path] = (),
        on_write: OnWrite = lambda values: codes.CHANGED,
        on_execute: Callable[[Path, str], int] = lambda path, arguments: codes.CHANGED,
    ) -> None:
        self.values = dict(values)
        self.executable = frozenset(executable)
        self.attributes: dict[Path, dict[str, str]] = {}
        self._on_write = on_write
        self._on_execute = on_execute

    def instances(self) -> tuple[Path, ...]:
        return tuple(sorted({path[:2] for path in self.values}))

    def has(self, path: Path) -> bool:
        size = len(path)
        return any(own[:size] == path for own in self.values) or any(own[:size] == path for own in self.executable)

    def below(self, path: Path) -> list[Record]:
        """Security (object 0) is nobody's to read (OMA Core §E.1)."""
        size = len(path)
        return [Record(own, value) for own, value in self.values.items() if own[:size] == path and own[0] != 0]

    def links(self, path: Path) -> str:
        """What lies below a path with its attributes, for a discover."""
        size = len(path)
        resources = [own for own in (*self.values, *self.executable) if own[:size] == path]
        nodes = {own[:depth] for own in resources for depth in range(max(1, size), 4)}
        return ",".join(f"<{path_text(node)}>{self._attributes(node)}" for node in sorted(nodes))

    def _attributes(self, path: Path) -> str:
        return "".join(f";{name}={value}" for name, value in self.attributes.get(path, {}).items())

    def write(self, records: Sequence[Record]) -> int:
        """The code of the answer."""
        values: dict[Path, Value] = {}
        for record in records:
            before = self.values.get(record.path)
            if before is None and record.path not in self.values:
                return codes.NOT_FOUND
            values[record.path] = typed(record.value, before)
        code = self._on_write(values)
        if code >> 5 == 2:
            self.values.update(values)
        return code

    def create(self, records: Sequence[Record]) -> int:
        self.values.update({record.path: record.value for record in records})
        return codes.CREATED

    def delete(self, path: Path) -> int:
        gone = [own for own in self.values if own[: len(path)] == path]
        if not gone:
            return codes.NOT_FOUND
        for own in gone:
            del self.values[own]
        return codes.DELETED

    def execute(self, path: Path, arguments: str) -> int:
        return self._on_execute(path, arguments) if path in self.executable else codes.METHOD_NOT_ALLOWED


def typed(value: Value, like: Value) -> Value:
    """A TLV value (bytes) as what stands there already. Raises FormatError."""
    if not isinstance(value, bytes) or isinstance(like, bytes):
        return value
    if isinstance(like, bool):
        return bool(integer(value))
    if isinstance(like, int):
        return integer(value)
    if isinstance(like, float):
        return number(value)
    return value.decode(errors="replace")
