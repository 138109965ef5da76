"""A command to a node that is told no times is given when its window begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flexrelay_adapters.opcua.commands import carry_out
from flexrelay_adapters.opcua.config import CommandRoute
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import Life

pytestmark = pytest.mark.timeout(120)
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
    await carry_out(order, CommandRoute.model_validate(route), server, life, wall_ms)  # type: ignore[arg-type]  # has what is used
    assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
    (called_at,) = server.called_at
    assert (called_at >= order.begins_at - 100) if waits else (called_at < order.begins_at)
