"""Metered energy per connection and ISP, from the twin: what the DSO settles and allocates with.

A missing boundary reading is interpolated and marked as estimated; where nothing near enough is known, the ISP is
substituted with zero and marked so. The window revisions that were read are pinned by a hash.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from flexrelay.twin import Twin, energy
from flexrelay_schemas.canonical import digest
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.quality import Provenance

WindowPin = Callable[[str, str, int], Awaitable[str]]
"""(device, date, ISP) → hex hash of the newest window revision, "" when there is none."""


@dataclass(frozen=True, slots=True)
class MeteredEnergy:
    """Net energy per ISP of the list that was asked for, in J, positive = withdrawal; and its rank of evidence."""

    energy_j: tuple[int, ...]
    quality: tuple[Provenance, ...]


async def metered(twin: Twin, meter: str, day: CalendarDay, isps: Sequence[int]) -> MeteredEnergy:
    """Energies of one connection's meter in these ISPs of the day."""
    energies: list[int] = []
    ranks: list[Provenance] = []
    for isp in isps:
        start, end = day.bounds(isp)
        found = await energy(twin, meter, start, end)
        energies.append(0 if found is None else found.net_j)
        ranks.append(Provenance.SUBSTITUTED if found is None else found.provenance)
    return MeteredEnergy(tuple(energies), tuple(ranks))


async def metered_all(
    twin: Twin, meters: Mapping[str, str], day: CalendarDay, isps: Sequence[int]
) -> dict[str, MeteredEnergy]:
    """{connection: energies} for {connection: meter DID}."""
    return {connection: await metered(twin, meter, day, isps) for connection, meter in sorted(meters.items())}


async def windows_hash(pin: WindowPin, meters: Sequence[str], day: CalendarDay, isp: int) -> str:
    """One hash over the window revisions that an ISP's energies come from (the ISP's and the one before it)."""
    pins = []
    for meter in sorted(meters):
        pins.append([meter, isp, await pin(meter, day.date, isp)])
        if isp > 1:
            pins.append([meter, isp - 1, await pin(meter, day.date, isp - 1)])
    return digest(pins)
