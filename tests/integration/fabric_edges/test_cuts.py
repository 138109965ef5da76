"""The network between gateway and peers breaks, anyhow and at the worst moments: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from integration.fabric_edges.wired import wired
from integration.fabric_faults.rig import PATIENCE_S, Rig, Running
from support.chance import told_seed
from support.wire import DOWN, UP, Wire

from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.follower import Follower

pytestmark = pytest.mark.timeout(1800)

KINDS = ("reset", "cut", "stall", "slow", "truncate", "double")


async def broken(running: Running, wires: list[Wire], kind: str, chance: random.Random) -> None:
    """One fault on some or all wires, for a while; then commits must be learned of again."""
    chosen = wires if kind == "reset" or chance.random() < 0.4 else chance.sample(wires, 1)
    for wire in chosen:
        match kind:
            case "reset":
                wire.reset()
            case "cut":
                wire.cut()
            case "stall":
                wire.stall()
            case "slow":
                wire.delay_s = chance.uniform(0.02, 0.3)
            case "truncate":
                wire.truncate(chance.choice((UP, DOWN)), chance.randrange(1, 40_000))
            case "double":
                wire.double(chance.choice((UP, DOWN)))
    # longer than the deadlines of calls now and then: they are answered, or known to be lost, only afterwards
    await asyncio.sleep(chance.choice((0.5, 1.5, 4.0)) if kind in ("cut", "stall") else 0.7)
    for wire in wires:
        wire.mend()
    await running.commits(10)


async def breaks(rig: Rig, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    async with wired(rig) as (between, wires):
        async with between.loaded(seed) as running:
            await running.commits(10)
            for _ in range(rounds):
                for kind in chance.sample(KINDS, len(KINDS)):
                    await broken(running, wires, kind, chance)
        lost = sum(wire.broken for wire in wires)
        assert lost >= rounds, "the faults ended no connection"
        await between.audited(f"seed {seed}: {rounds} x {len(KINDS)} faults, {lost} connections broken")


async def test_a_network_that_breaks_in_every_way(rig: Rig) -> None:
    await breaks(rig, told_seed(), rounds=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("turn", range(5))
async def test_a_network_that_breaks_all_the_time(rig: Rig, turn: int) -> None:
    await breaks(rig, told_seed(), rounds=5)


class InTheMiddle:
    """Cuts every wire while a call is under way: each so-many-th, a moment after it was sent."""

    def __init__(self, wires: list[Wire], chance: random.Random, every: int) -> None:
        self._wires = wires
        self._chance = chance
        self._every = every
        self._seen = 0
        self.hits = 0

    def _due(self) -> bool:
        self._seen += 1
        return self._seen % self._every == 0

    def _cut(self) -> None:
        self.hits += 1
        for wire in self._wires:
            wire.reset()

    def around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **named: Any) -> Any:
            if not self._due():
                return await inner(*args, **named)
            task = asyncio.ensure_future(inner(*args, **named))
            await asyncio.wait([task], timeout=self._chance.choice((0.0, 0.002, 0.01, 0.05)))
            self._cut()
            return await task

        return call

    def after(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = inner(*args)
            if self._due():
                self._cut()
            return result

        return call


@pytest.mark.parametrize("place", ["endorse", "submit", "block stream"])
async def test_a_cut_in_the_middle_of_a_call(rig: Rig, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = told_seed()
    async with wired(rig) as (between, wires):
        cuts = InTheMiddle(wires, random.Random(seed), every=5 if place == "block stream" else 25)
        if place == "block stream":
            monkeypatch.setattr(Follower, "_take", cuts.after(Follower._take))
        else:
            monkeypatch.setattr(PeerChannel, place, cuts.around(getattr(PeerChannel, place)))
        async with between.loaded(seed) as running:
            async with asyncio.timeout(PATIENCE_S):
                while cuts.hits < 3:  # noqa: ASYNC110 (the calls are counted, nobody is told)
                    await asyncio.sleep(0.05)
            monkeypatch.undo()
            await running.commits(5)
        await between.audited(f"seed {seed}: {cuts.hits} cuts in the middle of {place}")
