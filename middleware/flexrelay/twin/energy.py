"""Energy from registers: what settlement measures with.

The energy of [start, end] is the difference of the registers at its two ends. Where a reading at an end is missing,
the register there is interpolated linearly between its neighbours and the result is marked as estimated. A declared
meter exchange or roll-over joins the two counters: from its instant on the old one's last value is added and the new
one's first value is taken off.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Provenance

MAX_GAP_MS: Final = 86_400_000
"""Over a longer stretch without a reading nothing is interpolated."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """At `at` (UTC ms) a counter ended at `*_final` and went on from `*_initial`, in joules. A reading at exactly
    this instant is of the new counter."""

    at: int
    import_final: int
    import_initial: int = 0
    export_final: int = 0
    export_initial: int = 0


@dataclass(frozen=True, slots=True)
class Registers:
    """Continued over exchanges, at one instant, in joules."""

    import_j: int
    export_j: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of an interval in joules; `provenance` is the weaker one of its two ends."""

    import_j: int
    export_j: int
    provenance: Provenance

    @property
    def net_j(self) -> int:
        """Positive = withdrawal from the grid."""
        return self.import_j - self.export_j


class Readings(Protocol):
    """Where readings come from; `Twin` is one."""

    @property
    def exchanges(self) -> "dict[str, tuple[Exchange, ...]]": ...

    async def around(self, did: str, instant: int) -> tuple[Measurement | None, Measurement | None]:
        """(the last reading at or before, the first one after) `instant` among those with both energy registers."""
        ...


async def register_at(readings: Readings, did: str, instant: int, *, max_gap: int = MAX_GAP_MS) -> Registers | None:
    """The registers at `instant`, read or interpolated; None when there is no reading on one of its sides, or none
    near enough."""
    before, after = await readings.around(did, instant)
    exchanges = readings.exchanges.get(did, ())
    if before is None:
        return None
    first = _continued(before, exchanges)
    if before.observed_at == instant:
        return first
    if after is None or after.observed_at - before.observed_at > max_gap:
        return None
    second = _continued(after, exchanges)
    elapsed, length = instant - before.observed_at, after.observed_at - before.observed_at
    return Registers(
        first.import_j + (second.import_j - first.import_j) * elapsed // length,
        first.export_j + (second.export_j - first.export_j) * elapsed // length,
        Provenance.ESTIMATED,
    )


async def energy(readings: Readings, did: str, start: int, end: int, *, max_gap: int = MAX_GAP_MS) -> Energy | None:
    """The energy of [start, end] (UTC ms of market time); None where `register_at` has no answer for an end."""
    if start > end:
        raise ValueError(f"the interval ends ({end}) before it begins ({start})")
    first = await register_at(readings, did, start, max_gap=max_gap)
    last = await register_at(readings, did, end, max_gap=max_gap)
    if first is None or last is None:
        return None
    provenance = min(first.provenance, last.provenance)
    return Energy(last.import_j - first.import_j, last.export_j - first.export_j, provenance)


def _continued(reading: Measurement, exchanges: Iterable[Exchange]) -> Registers:
    imported, exported = reading.registers["import_j"], reading.registers["export_j"]
    for exchange in exchanges:
        if exchange.at <= reading.observed_at:
            imported += exchange.import_final - exchange.import_initial
            exported += exchange.export_final - exchange.export_initial
    return Registers(imported, exported, reading.provenance)
