"""Revocation reaches the gate: identity and grant events go to the ingest registry the moment their block arrives.

The lag is measured against the transaction's timestamp, so it also holds what ordering and commit took.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from flexrelay.projections.projector import Event
from flexrelay.projections.views import Views
from flexrelay_sdk.clock import wall_ms

REVOKING: Final = frozenset({"identity.deactivated", "identity.suspended", "identity.rotated", "grant.revoked"})
"""Events that take a right away."""


class Gate(Protocol):
    """What judges incoming frames; an event takes effect in the call."""

    def apply(self, name: str, payload: Mapping[str, Any]) -> None: ...


class Revocation:
    """A listener of Projections. `gates` are e.g. the ingest registry."""

    def __init__(self, *gates: Gate, clock: Callable[[], int] = wall_ms) -> None:
        self._gates = gates
        self._clock = clock
        self.newest_lag_ms = 0
        self.greatest_lag_ms = 0
        self.count = 0
        """Revoking events since the start."""

    async def load(self, views: Views) -> int:
        """Before following: everything that is known already. Returns the number of events."""
        count = 0
        for prefix in ("identity.", "grant."):
            async for event in views.every(prefix):
                self._give(event)
                count += 1
        return count

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.name.startswith(("identity.", "grant.")):
                self._give(event)
                if event.name in REVOKING:
                    self.count += 1
                    self.newest_lag_ms = max(0, self._clock() - event.at)
                    self.greatest_lag_ms = max(self.greatest_lag_ms, self.newest_lag_ms)

    def _give(self, event: Event) -> None:
        for gate in self._gates:
            gate.apply(event.name, event.payload)
