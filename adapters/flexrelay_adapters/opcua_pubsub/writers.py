"""What is remembered of publishers and their DataSetWriters: metadata, sequence numbers, instants. Bounded; no I/O."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from flexrelay_adapters.opcua_pubsub.frame import MAX_FACTS_BYTES, MAX_SHIFT_MS
from flexrelay_adapters.opcua_pubsub.metadata import MetaData

_INSTANTS: Final = 8
_UINT32: Final = 2**32


@dataclass(slots=True)
class Writer:
    """Of one DataSetWriter. What a message changes is told apart (`Next`), so that it counts only when it is stored."""

    metadata: MetaData | None = None
    sequence: int | None = None
    """Of the newest message; None: not known."""
    missing: int = 0
    """Messages that are missing since the newest reading."""
    instants: OrderedDict[int, frozenset[tuple[str, int]]] = field(default_factory=OrderedDict)
    """The newest readings' instants (UTC ms) and registers."""

    @property
    def facts(self) -> bytes:
        told = self.metadata.facts if self.metadata is not None else b""
        return told if len(told) <= MAX_FACTS_BYTES else b""

    def gap_before(self, sequence: object, *, keeps_alive: bool) -> int:
        """Messages that are missing before the one of this SequenceNumber, which is counted in. A keep-alive names the
        number that comes next (OPC 10000-14 §7.2.5.4.1). A number that goes back is a repetition, a restart or the
        roll-over."""
        if type(sequence) is not int or not 0 <= sequence < _UINT32:
            return 0
        last = self.sequence
        self.sequence = (sequence - 1) % _UINT32 if keeps_alive else sequence
        return max(0, sequence - last - 1) if last is not None else 0

    def shift_for(self, instant: int, registers: Mapping[str, int]) -> int:
        """How many ms after `instant` the reading holds: 0 unless another one stands there. Counts it in."""
        values = frozenset(registers.items())
        for shift in range(MAX_SHIFT_MS + 1):
            known = self.instants.get(instant + shift)
            if known is None or known == values:
                self.instants[instant + shift] = values
                self.instants.move_to_end(instant + shift)
                if len(self.instants) > _INSTANTS:
                    self.instants.popitem(last=False)
                return shift
        return 0

    def copy(self) -> "Writer":
        return Writer(self.metadata, self.sequence, self.missing, OrderedDict(self.instants))


class Writers:
    """By credential: `publisher/writer`, or `publisher` where messages name no writer."""

    def __init__(self, max_publishers: int, max_writers: int) -> None:
        self._max_publishers = max_publishers
        self._max_writers = max_writers
        self._publishers: dict[str, dict[str, Writer]] = {}

    def __iter__(self) -> Iterator[str]:
        """The credentials that are known."""
        for publisher, writers in sorted(self._publishers.items()):
            yield from (f"{publisher}/{name}" if name else publisher for name in sorted(writers))

    def get(self, credential: str) -> Writer | None:
        """None when it is unknown and there is room for no more."""
        publisher, _, name = credential.partition("/")
        writers = self._publishers.get(publisher)
        if writers is None:
            if len(self._publishers) >= self._max_publishers:
                return None
            writers = self._publishers[publisher] = {}
        found = writers.get(name)
        if found is None and len(writers) < self._max_writers:
            found = writers[name] = Writer()
        return found

    def put(self, changed: Mapping[str, Writer]) -> None:
        """Replace those that `get` gave, as messages that are stored have changed them."""
        for credential, writer in changed.items():
            publisher, _, name = credential.partition("/")
            self._publishers[publisher][name] = writer
