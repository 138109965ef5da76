"""How an order becomes commands: the port for an aggregator's strategy, and the proportional one."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flexrelay.market.fleet import Fleet
from flexrelay_schemas.intervals import CalendarDay


@dataclass(frozen=True, slots=True)
class OrderedIsp:
    """Power (W, change against the prognosis, positive = more withdrawal) over [from_ms, until_ms) of market time."""

    isp: int
    from_ms: int
    until_ms: int
    power_w: int


@dataclass(frozen=True, slots=True)
class DispatchOrder:
    """An awarded order. Its `order_id` is the correlation id of commands, telemetry and settlement."""

    order_id: str
    aggregator: str
    isps: tuple[OrderedIsp, ...]

    @classmethod
    def from_event(cls, payload: Mapping[str, Any], day: CalendarDay) -> "DispatchOrder":
        """The order in a `congestion.ordered` event; `day` is its date in the published calendar."""
        if day.date != payload["date"]:
            raise ValueError(f"order {payload['order_id']} is for {payload['date']}, the calendar day is {day.date}")
        isps = tuple(OrderedIsp(item["isp"], *day.bounds(item["isp"]), item["power_w"]) for item in payload["isps"])
        return cls(payload["order_id"], payload["aggregator"], isps)

    @property
    def from_ms(self) -> int:
        return min(item.from_ms for item in self.isps)

    @property
    def until_ms(self) -> int:
        return max(item.until_ms for item in self.isps)


@dataclass(frozen=True, slots=True)
class Planned:
    """One command to be. `parameters` as in `flexrelay_sdk.Command`; `send_at` and `expires_at` in wall-clock ms."""

    did: str
    credential: str
    name: str
    parameters: Mapping[str, int]
    send_at: int
    expires_at: int

    def command_id(self, order_id: str) -> str:
        """The same plan gives the same id, so planning again after a crash adds nothing."""
        values = "\n".join(f"{name}={value}" for name, value in sorted(self.parameters.items()))
        text = f"{order_id}\n{self.did}\n{self.name}\n{values}"
        return "cmd-" + hashlib.sha256(text.encode()).hexdigest()[:24]


class Plan(Protocol):
    """An aggregator's strategy."""

    def commands(self, order: DispatchOrder) -> Sequence[Planned]:
        """Deterministic for the same order and fleet. Raises NoCapacity when nothing can be commanded."""
        ...


class NoCapacity(Exception):
    """No device of the fleet is available: the order cannot be activated."""


@dataclass(frozen=True, slots=True)
class ProportionalPlan:
    """Splits each interval's power over the available batteries by capacity, one command per battery and run of
    intervals with one power. More than they can do together is cut to what they can.

    `credentials` maps DIDs to the transport's names; `wall_of` turns market time into wall time.
    """

    fleet: Fleet
    credentials: Mapping[str, str]
    wall_of: Callable[[int], int]
    available: Callable[[str], bool] = lambda did: True
    send_at: int = 0

    def commands(self, order: DispatchOrder) -> Sequence[Planned]:
        units = tuple(unit for unit in self.fleet.units if self.available(unit.did))
        if not units:
            raise NoCapacity(f"order {order.order_id}: none of {len(self.fleet.units)} batteries is available")
        fleet = Fleet(units)
        most = fleet.rated_w
        shares = [fleet.split(max(-most, min(most, item.power_w))) for item in order.isps]
        return [
            Planned(
                did=unit.did,
                credential=self.credentials[unit.did],
                name="set_power",
                parameters={"power_w": power_w, "from_ms": from_ms, "until_ms": until_ms},
                send_at=self.send_at,
                expires_at=self.wall_of(until_ms),
            )
            for index, unit in enumerate(units)
            for power_w, from_ms, until_ms in _runs(order.isps, [share[index] for share in shares])
        ]


def _runs(isps: Sequence[OrderedIsp], powers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(power, from, until) of adjoining intervals with one power; zero power is no command."""
    run: tuple[int, int, int] | None = None
    for power, item in zip(powers, isps, strict=True):
        if run is not None and run[0] == power and run[2] == item.from_ms:
            run = (power, run[1], item.until_ms)
            continue
        if run is not None and run[0]:
            yield run
        run = (power, item.from_ms, item.until_ms)
    if run is not None and run[0]:
        yield run
