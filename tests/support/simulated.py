"""Simulated devices against a gateway's reading path as it is: adapter → ingest → SQLite journal.

The profile has all five kinds. `expected` is what its devices measure, reckoned a second time without any protocol.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flexrelay.ingest import Enrolment, Ingest, Limits, NoHistory, RegisterChecks, Registry
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay_schemas.did import Create, key_hash
from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk import Adapter, Command, CommandState
from flexrelay_sdk.simulation import DeviceSimulator, Plan, Profile, ProtocolSimulator, make_devices
from flexrelay_sdk.testkit import Life, running, until
from flexrelay_sdk.vocabulary import confirms

T0 = 1_463_738_400_000
PATIENCE_S = 90.0
INTERVAL_S = 10.0
PROFILE: dict[str, Any] = {
    "step_s": 60,
    "series": {"home": [3_600, 720, -1_080], "roof": [0, 2_000, 4_000], "car": [1, 1, 0], "cold": [-5_000, -7_000]},
    "devices": [
        {"kind": "meter", "series": "home"},
        {"kind": "pv", "series": "roof"},
        {"kind": "battery", "parameters": {"rated_w": 3_000, "ramp_w": 60}},
        {"kind": "ev_charger", "series": "car"},
        {"kind": "heat_pump", "series": "cold", "parameters": {"indoor_mc": 19_000}},
    ],
}
NAMES = ("meter-1", "pv-2", "battery-3", "ev-charger-4", "heat-pump-5")
Readings = dict[int, dict[str, int]]
"""Registers by their instant."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def free_ports(count: int) -> int:
    """The first of `count` ports in a row, below those that the system gives out by itself."""
    chance = random.SystemRandom()
    while True:
        first = chance.randrange(20_000, 30_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def devices(
    count: int = 5, seed: str = "a", profile: Mapping[str, Any] = PROFILE, start_ms: int = T0
) -> list[DeviceSimulator]:
    return make_devices(Profile.model_validate(profile), count, seed, start_ms)


def plan(rate: int = 50, interval_s: float = INTERVAL_S) -> Plan:
    """Market time from T0 on."""
    return Plan(T0, now_ms(), interval_s=interval_s, rate=rate)


def expected(count: int, each: int, seed: str = "a", interval_s: float = INTERVAL_S) -> dict[str, Readings]:
    """What the first `each` readings of `count` devices are, by device."""
    every = int(interval_s * 1000)
    found = {}
    for number, device in enumerate(devices(count, seed)):
        first = T0 + every + every * number // count
        found[device.name] = {at: device.sample(at).registers for at in range(first, first + each * every, every)}
    return found


class Reckoned:
    """The samples of one of the devices one after the other, as far as they are asked for; the first is what it shows
    before it measures."""

    def __init__(self, number: int, count: int = 5, seed: str = "a") -> None:
        self._device = devices(count, seed)[number]
        every = int(INTERVAL_S * 1000)
        self._at = itertools.count(T0 + every + every * number // count, every)
        self._samples = [self._device.model.registers()]

    def __getitem__(self, index: int) -> dict[str, int]:
        while len(self._samples) <= index:
            self._samples.append(self._device.sample(next(self._at)).registers)
        return self._samples[index]


class Gateway:
    """What the journal holds; `stored` readings in all, for waiting."""

    def __init__(self, ingest: Ingest, journal: SqliteJournal) -> None:
        self.ingest = ingest
        self.journal = journal
        self._position = 0
        self._readings: dict[str, list[Measurement]] = {}

    @property
    def stored(self) -> int:
        return self.ingest.outcomes["stored"]

    async def readings(self, credential: str) -> list[Measurement]:
        for entry in await self.journal.read(self._position, 1_000_000):
            self._position = entry.position
            self._readings.setdefault(entry.credential, []).extend(entry.measurements)
        return self._readings.get(credential, [])

    async def registers(self, credential: str) -> Readings:
        return {m.observed_at: dict(m.registers) for m in await self.readings(credential)}

    async def until(self, credential: str, condition: Callable[[list[Measurement]], bool], what: str) -> None:
        """Wait for readings of a device that fulfil the condition."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition(await self.readings(credential)):  # noqa: ASYNC110  # the journal tells nobody
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{what} did not come within {PATIENCE_S:g} s") from None


@asynccontextmanager
async def gateway(folder: Path, protocol: str, credentials: Sequence[str]) -> AsyncIterator[Gateway]:
    """Devices with these credentials are enrolled; they do not sign."""
    registry = Registry("simnet", "dso")
    for number, credential in enumerate(credentials):
        create = Create(
            network="simnet", kind="device", key="z" + "2" * 48, next_key_hash=key_hash("-"), nonce=f"{number:032x}"
        )
        did = create.did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": create.key, "version": 1})
        registry.enrol(Enrolment(did, ((protocol, credential),), unsigned=True))
    folder.mkdir(exist_ok=True)
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        # market time runs ahead of the wall's clock here
        ingest = Ingest(registry, journal, checks, lambda: now_ms() + 10**11, Limits(stale_ms=10**13))
        yield Gateway(ingest, journal)
        await ingest.close()


@asynccontextmanager
async def living(simulator: ProtocolSimulator, adapter: Adapter, found: Gateway) -> AsyncIterator[None]:
    """Both run for the length of the block, whichever waits for the other; a simulator that ends by itself fails it."""
    async with running(adapter, found.ingest, connected=False):
        task = asyncio.create_task(simulator.run(), name="simulator")
        owner = asyncio.current_task()
        assert owner is not None

        def end(_: object) -> None:
            owner.cancel()

        task.add_done_callback(end)
        try:
            yield
        except asyncio.CancelledError:
            if task.done() and not task.cancelled():
                raise AssertionError(f"the simulator ended with {task.exception()!r}") from None
            raise
        finally:
            task.remove_done_callback(end)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def told(adapter: Any, command: Command) -> CommandState:
    """Its last state; the life before it is checked."""
    life = Life()
    await adapter.execute(command, life)
    life.check()
    return life.states[-1]


def command(name: str, credential: str, begins_ms: int = T0, **parameters: int) -> Command:
    """In force for a day of market time. It has begun when it comes: a device on a busy machine lives behind the plan's
    clock, and must not have to get there first."""
    begins = begins_ms // 1000 * 1000
    window = {"from_ms": begins, "until_ms": begins + 86_400_000}
    expires_at = now_ms() + int(PATIENCE_S * 1000)
    return Command(f"{name}-{time.time_ns()}", "did:x", credential, name, {**parameters, **window}, expires_at, "o")


def shown(order: Command) -> Callable[[list[Measurement]], bool]:
    """Whether a reading confirms the command, as the gateway judges it."""
    return lambda found: any(confirms(order, m.observed_at, m.registers) for m in found)


def obeyed_with_ramp(readings: Readings, wanted_w: int, ramp_w: int, interval_s: float = INTERVAL_S) -> None:
    """The power got to `wanted_w` by no more than its ramp a second, and the store holds what was drawn."""
    powers = [registers["power_w"] for _, registers in sorted(readings.items())]
    steps = [abs(after - before) for before, after in itertools.pairwise(powers)]
    assert wanted_w in powers and max(steps) <= ramp_w * interval_s, powers
    assert any(0 < abs(power) < abs(wanted_w) for power in powers), f"no ramp: {powers}"


async def until_stored(found: Gateway, count: int) -> None:
    await until(lambda: found.stored >= count, PATIENCE_S, f"{count} readings in the journal")
