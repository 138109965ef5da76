"""How simulated devices get a protocol, and when they measure."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.simulation.simulator import DeviceSimulator


@dataclass
class SimulatorStats:
    """Counters for people: readings handed to the protocol, those whose acknowledgement came, commands answered."""

    sent: int = 0
    confirmed: int = 0
    commands: int = 0
    reconnects: int = 0


@dataclass(frozen=True)
class Plan:
    """When devices measure: each every `interval_s` of market time, which passes `rate` times as fast as the wall's.

    Market time begins at `start_ms` when the wall shows `wall_start_ms`.
    """

    start_ms: int
    wall_start_ms: int
    interval_s: float = 10.0
    rate: int = 1
    wall: Callable[[], int] = wall_ms

    def now(self) -> int:
        """Market time, UTC ms."""
        return self.start_ms + (self.wall() - self.wall_start_ms) * self.rate

    async def due(self, device: int, count: int) -> AsyncGenerator[int, None]:
        """The instants (market time) at which device number `device` of `count` measures, each when it has come.

        Devices are spread evenly over the interval. A device that is behind catches up without pauses.
        """
        every_ms = max(1, int(self.interval_s * 1000))
        at = self.start_ms + every_ms + every_ms * device // max(1, count)
        while True:
            wait_ms = (at - self.now()) / self.rate
            if wait_ms > 0:
                await asyncio.sleep(wait_ms / 1000)
            yield at
            at += every_ms


class ProtocolSimulator(Protocol):
    """Devices on one protocol."""

    stats: SimulatorStats

    async def run(self) -> None:
        """Connect the devices, send their readings, let them obey; reconnect; until cancelled. Raises ValueError or
        ConnectionError where going on makes no sense (wrong password)."""
        ...


class SimulatorFactory(Protocol):
    """What an entry point of the group `flexrelay.simulators` names; its name is the protocol's."""

    def __call__(
        self, section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
    ) -> ProtocolSimulator:
        """`section` is where to send and how; relative paths in it are relative to `folder`; keys that devices need
        come from `seed` and their name. No I/O. Raises ValueError whose text begins with the field's path."""
        ...
