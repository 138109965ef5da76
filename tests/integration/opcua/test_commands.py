"""Writes as commands: acknowledged by the server, confirmed by the reading that shows it, refused, waiting, expired."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.opcua_rig import secured, server_options
from support.opcua_server import NAMESPACE, NodeServer, node_server, now_ms

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, RecordingSink, running, until
from flexrelay_sdk.vocabulary import confirms

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0


def adapter(server: NodeServer, folder: Path) -> OpcuaAdapter:
    values: dict[str, Any] = secured(server, folder, keys=("power",))
    # what the device is told and what it does stand in one variable here
    values["devices"]["plant"] = {
        "registers": {"power_w": {"node": server.node("setpoint"), "unit": "kW", "negate": True, "sampling_ms": 100.0}},
        "commands": {
            "set_power": {
                "write": server.node("setpoint"),
                "arguments": [{"parameter": "power_w", "unit": "kW", "negate": True}],
            },
            "switch": {"write": server.node("none"), "arguments": [{"parameter": "on", "type": "Boolean"}]},
        },
    }
    return OpcuaAdapter(OpcuaConfig.from_section("plant", values))


def command(number: int, name: str = "set_power", lasts_ms: int = 300_000, **parameters: int) -> Command:
    window = {"from_ms": now_ms() - 1000, "until_ms": now_ms() + 900_000}
    return Command(
        f"c-{number}", "did:x", f"{NAMESPACE}/plant", name, {**parameters, **window}, now_ms() + lasts_ms, "order"
    )


async def told(made: OpcuaAdapter, order: Command) -> Life:
    life = Life()
    await made.execute(order, life)
    life.check()
    return life


async def test_writes(tmp_path: Path) -> None:
    async with node_server(tmp_path / "server", **server_options()) as server:
        made, sink = adapter(server, tmp_path), RecordingSink()

        def shown(order: Command) -> bool:
            mine = [m for s in sink.stored if s.frame.credential == order.credential for m in s.measurements]
            return any(confirms(order, m.observed_at, m.registers) for m in mine)

        async def done() -> list[float]:
            return [act["value"] for act in (await server.tell("acts"))["acts"]]

        async with running(made, sink, connect_s=PATIENCE_S):
            order = command(1, power_w=-2500)
            assert (await told(made, order)).states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
            await until(lambda: shown(order), PATIENCE_S, "the reading that confirms it")
            assert not shown(command(2, power_w=9000))

            await server.tell("behave", behaviour="refuse")
            life = await told(made, command(3, power_w=0))
            assert life.states[-1] is CommandState.FAILED and "BadOutOfRange" in life.updates[-1].detail
            life = await told(made, command(4, "switch", on=1))
            assert life.states[-1] is CommandState.FAILED and "BadNodeIdUnknown" in life.updates[-1].detail
            assert (await told(made, command(5, lasts_ms=-1, power_w=0))).states[-1] is CommandState.EXPIRED
            assert await done() == [2.5], "what was refused or too late was not done"

            await server.stop()
            await until(lambda: not made.connected, PATIENCE_S, "the loss of the server")
            waiting = asyncio.create_task(told(made, command(6, lasts_ms=300_000, power_w=-700)))
            late = await told(made, command(7, lasts_ms=300, power_w=-800))
            assert late.states[-1] is CommandState.EXPIRED and not waiting.done()
            await server.start()
            assert (await waiting).states[-1] is CommandState.ACKED
            assert await done() == [0.7], "once, and not the one that had expired"
