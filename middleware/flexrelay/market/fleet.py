"""An aggregator's batteries: what they can offer together, and how an order is split among them.

Powers in W (positive = charging), energies in J. Splitting is by capacity, so that all batteries of a fleet keep the
same relative state of charge; remainders go to the largest remainder, ties to the name.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """One battery: its connection and device, rated power and usable capacity."""

    connection: str
    did: str
    rated_w: int
    capacity_j: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """The batteries of one aggregator at one congestion point."""

    units: tuple[Unit, ...]

    @property
    def capacity_j(self) -> int:
        return sum(unit.capacity_j for unit in self.units)

    @property
    def rated_w(self) -> int:
        """The greatest power at which the split keeps every battery within its own rating."""
        total = self.capacity_j
        return min(unit.rated_w * total // unit.capacity_j for unit in self.units)

    def share_of(self, need_w: Sequence[int], permille: int, isp_seconds: int, granularity_w: int) -> tuple[int, ...]:
        """A charging profile proportional to the need, at most `permille` of it and within power and capacity.

        Rounded down to granules, so that the sum of the energies never exceeds what the batteries can hold.
        """
        wanted = [power * permille // 1000 for power in need_w]
        energy = sum(wanted) * isp_seconds
        scale_num, scale_den = (self.capacity_j, energy) if energy > self.capacity_j else (1, 1)
        top = self.rated_w
        return tuple(min(top, power * scale_num // scale_den) // granularity_w * granularity_w for power in wanted)

    def split(self, power_w: int) -> tuple[int, ...]:
        """One power per unit, in the fleet's order, that sum exactly to `power_w` (negative = discharging)."""
        sign, size, total = (-1 if power_w < 0 else 1), abs(power_w), self.capacity_j
        parts = [size * unit.capacity_j // total for unit in self.units]
        order = sorted(
            range(len(parts)),
            key=lambda i: (-(size * self.units[i].capacity_j % total), self.units[i].connection),
        )
        for index in order[: size - sum(parts)]:
            parts[index] += 1
        return tuple(sign * part for part in parts)


def spread(energy_j: int, isps: Sequence[int], isp_seconds: int) -> dict[int, int]:
    """A constant power over `isps` that gives `energy_j` in all, as {isp: W}; the last interval takes the remainder.

    What is less than a watt over one interval stays in the battery.
    """
    if not isps:
        return {}
    watts_total = energy_j // isp_seconds
    each = watts_total // len(isps)
    plan = dict.fromkeys(isps, each)
    plan[isps[-1]] += watts_total - each * len(isps)
    return plan
