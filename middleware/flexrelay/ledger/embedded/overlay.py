"""A view of the state with the changes of transactions that are not applied yet on top."""

import bisect
from collections.abc import Iterator
from typing import Final, Protocol

from flexrelay.ledger.embedded.state import Entry, State

_UNCHANGED: Final = object()


class StateView(Protocol):
    """What executing and judging transactions needs of the state."""

    def get(self, key: str) -> Entry | None: ...

    def range(self, start: str, end: str) -> Iterator[tuple[str, Entry]]: ...

    def policy(self, key: str) -> tuple[str, ...] | None: ...


class Overlay:
    """`changes` hides what the state says: an entry, or None for a deleted key."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.changes: dict[str, Entry | None] = {}
        self.has_policies = state.has_policies
        """Whether a key may have a policy."""

    def get(self, key: str) -> Entry | None:
        changed = self.changes.get(key, _UNCHANGED)
        return self._state.get(key) if changed is _UNCHANGED else changed  # type: ignore[return-value]  # an entry or None

    def policy(self, key: str) -> tuple[str, ...] | None:
        """The organisations whose endorsement a write of the key needs."""
        entry = self.get(key) if self.has_policies else None
        return None if entry is None else entry.policy

    def range(self, start: str, end: str) -> Iterator[tuple[str, Entry]]:
        """All entries in [start, end) in key order."""
        changed = [(key, entry) for key, entry in self.changes.items() if start <= key < end]
        if not changed:
            yield from self._state.range(start, end)
            return
        rows = [row for row in self._state.range(start, end) if row[0] not in self.changes]
        for key, entry in changed:
            if entry is not None:
                bisect.insort(rows, (key, entry), key=lambda row: row[0])
        yield from rows

    def versions(self, start: str, end: str) -> list[tuple[str, int, int]]:
        """(key, block, tx) of [start, end) in key order."""
        if any(start <= key < end for key in self.changes):
            return [(key, entry.block, entry.tx) for key, entry in self.range(start, end)]
        return self._state.versions(start, end)
