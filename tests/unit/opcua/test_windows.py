"""A command to a node that is told no times is given when its window begins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from flexrelay_adapters._commands import Newest
from flexrelay_adapters.opcua.commands import carry_out
from flexrelay_adapters.opcua.config import CommandRoute
from flexrelay_adapters.opcua.refusals import ConnectionLost
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import Life, until

pytestmark = pytest.mark.timeout(300)
POWER = {"parameter": "power_w", "unit": "kW"}


class Server:
    """What of a `Connection` a command needs; notes when it was called."""

    def __init__(self) -> None:
        self.called_at: list[int] = []

    async def online(self) -> Server:
        return self

    def resolve(self, node: str) -> str:
        return node

    async def write(self, node: str, value: Any) -> str:
        self.called_at.append(wall_ms())
        return ""

    async def call(self, object_: str, method: str, arguments: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        self.called_at.append(wall_ms())
        return "", ()


@pytest.mark.parametrize(
    ("route", "waits"),
    [
        ({"write": "ns=2;s=p", "arguments": [POWER]}, True),
        ({"object": "ns=2;s=o", "method": "ns=2;s=m", "arguments": [POWER], "repeatable": True}, True),
        (
            {
                "object": "ns=2;s=o",
                "method": "ns=2;s=m",
                "arguments": [POWER, {"parameter": "from_ms", "type": "Int64"}],
                "repeatable": True,
            },
            False,
        ),
    ],
)
async def test_when_it_is_given(route: dict[str, Any], waits: bool) -> None:
    server, life, ends_at = Server(), Life(), wall_ms() + (61_000 if waits else 600_000)
    order = Command("c", "did:x", "s/d", "set_power", {"power_w": 1, "from_ms": 0, "until_ms": 60_000}, ends_at, "o")
    await carry_out(order, CommandRoute.model_validate(route), server, Newest(), life, wall_ms)  # type: ignore[arg-type]  # has what is used
    assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
    (called_at,) = server.called_at
    assert (called_at >= order.begins_at - 100) if waits else (called_at < order.begins_at)


class Deaf(Server):
    """Gives no answer to one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.deaf_to: float | None = value
        self.unheard = 0
        self.held: Any = None

    async def write(self, node: str, value: Any) -> str:
        if value.Value == self.deaf_to:
            self.unheard += 1
            raise ConnectionLost("gone")
        self.held = value.Value
        return ""


async def test_an_older_write_that_is_tried_again_does_not_follow_a_newer_one() -> None:
    server, newest, ends_at = Deaf(1.0), Newest(), wall_ms() + 90_000
    route = CommandRoute.model_validate({"write": "ns=2;s=p", "arguments": [POWER]})
    window = {"from_ms": 0, "until_ms": 100_000}
    lives = [Life(), Life()]
    older, newer = (
        carry_out(
            Command(name, "did:x", "s/d", "set_power", {"power_w": power_w, **window}, ends_at, "o"),
            route,
            server,  # type: ignore[arg-type]  # has what is used
            newest,
            life,
            wall_ms,
        )
        for name, power_w, life in (("older", 1_000, lives[0]), ("newer", 2_000, lives[1]))
    )
    executing = asyncio.create_task(older)
    await until(lambda: server.unheard > 0, 60)
    await newer
    server.deaf_to = None
    await executing
    assert server.held == 2.0 and [life.states[-1] for life in lives] == [CommandState.FAILED, CommandState.ACKED]
    assert "newer" in lives[0].updates[-1].detail
