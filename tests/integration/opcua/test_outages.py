"""Lost sessions, restarts, history, floods and stale times, against node-opcua."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from support.opcua_rig import secured, server_options
from support.opcua_server import NAMESPACE, node_server, now_ms, section

from flexrelay_adapters.opcua import ConnectionLost, OpcuaAdapter, OpcuaConfig
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0


def adapter(values: dict[str, Any]) -> OpcuaAdapter:
    return OpcuaAdapter(OpcuaConfig.from_section("plant", values))


async def test_a_cut_connection_takes_the_subscription_over(tmp_path: Path) -> None:
    """Nothing is read from history: the server queued it for us."""
    async with node_server(tmp_path / "server", **server_options(), history=False, historyFile="") as server:
        made, sink = adapter(secured(server, tmp_path, keys=("power",))), RecordingSink()
        async with running(made, sink, connect_s=PATIENCE_S):
            for number in range(5):
                await server.set("meter.power", number)
            await until(lambda: 4 in sink.values(), PATIENCE_S, "the first readings")
            for cut in range(2):
                sink.hold()
                await server.set("meter.power", 10 * (cut + 1))
                await until(lambda: sink.waiting > 0, PATIENCE_S, "a frame in the sink")
                await server.tell("cut")
                await server.set("meter.power", 10 * (cut + 1) + 1)
                sink.release()
                await until(lambda n=10 * (cut + 1) + 1: n in sink.values(), PATIENCE_S, "what came meanwhile")
            assert made.stats.transfers == 2 and made.stats.subscriptions == 1 and made.stats.history_frames == 0
        assert sink.values() == [0, 1, 2, 3, 4, 10, 11, 20, 21] and sink.dead == []


async def test_history_fills_a_restart_and_backfill_reads_what_is_asked(tmp_path: Path) -> None:
    async with node_server(tmp_path / "server") as server:
        made, sink = adapter(section(server, tmp_path, keys=("power",))), RecordingSink()
        with pytest.raises(ConnectionLost):
            await made.backfill(sink, 0, 1)
        async with running(made, sink, connect_s=PATIENCE_S):
            await server.set("meter.power", 1)
            await until(lambda: sink.values() == [1], PATIENCE_S, "the first reading")
            first_ms = sink.measurements[0].observed_at
        for number in range(2, 8):  # while the gateway is away
            await server.set("meter.power", number)
        await server.stop()  # its subscriptions go with it, its history stays
        await server.start()
        began = time.monotonic()
        heir = adapter(section(server, tmp_path, keys=("power",)))
        async with running(heir, sink, connect_s=PATIENCE_S):
            await until(lambda: sink.values()[-1] == 7 and heir.stats.history_frames > 0, PATIENCE_S, "the history")
            print(f"back after {time.monotonic() - began:.1f} s")
            assert sink.values() == list(range(1, 8)) and heir.stats.history_frames == 1
            again = RecordingSink()
            assert await heir.backfill(again, first_ms, now_ms()) == 1
            assert again.values() == list(range(1, 8))
            assert await heir.backfill(again, first_ms, now_ms(), ["another"]) == 0
            assert (
                await heir.backfill(again, first_ms + 1, first_ms + 2, [f"{server.url[10:].split('/')[0]}/meter"]) == 0
            )


async def test_a_flood_and_strange_times_disturb_no_other_device(tmp_path: Path) -> None:
    devices = {"meter": ["power"], "flood": ["power"]}
    async with node_server(tmp_path / "server", devices=devices, history=False) as server:
        values = section(server, tmp_path, keys=("power",))
        values["devices"]["flood"] = {
            "registers": {"power_w": {"node": server.node("flood.power"), "unit": "W", "queue": 100}}
        }
        made, sink = adapter(values), RecordingSink()
        async with running(made, sink, connect_s=PATIENCE_S):
            start = now_ms() - 50_000
            for number in range(10):
                await server.tell("many", key="flood.power", **{"from": number * 2000}, count=2000, time=start)
                start += 2000
                await server.set("meter.power", number)
            await server.set("meter.power", 100, time_ms=1)  # 1970
            await server.set("meter.power", 101, time_ms=now_ms() + 10**10)
            mine = made.config.credential("meter")
            wanted = [*range(10), 100, 101]

            def readings() -> list[int]:
                found = [s for s in sink.stored if s.frame.credential == mine]
                return [m.registers["power_w"] for s in found for m in s.measurements]

            # in one frame the readings stand by their instants
            await until(lambda: sorted(readings()) == wanted, PATIENCE_S, "every reading of the quiet device")
            await asyncio.sleep(0.5)
            flood = len(sink.values()) - len(wanted)
            assert 0 < flood < 20_000, "the server's queue bounds the device that floods"
            assert sink.faults == [] and {reason for _, reason in sink.dead} <= {"bad_time"}


async def test_variables_that_are_not_there_and_the_others(tmp_path: Path) -> None:
    async with node_server(tmp_path / "server") as server:
        values = section(server, tmp_path)
        values["devices"]["meter"]["registers"]["voltage_mv"] = {"node": server.node("meter.none"), "unit": "V"}
        values["devices"]["gone"] = {"registers": {"power_w": {"node": "nsu=urn:gone;s=x", "unit": "W"}}}
        made, sink = adapter(values), RecordingSink()
        async with running(made, sink, connect_s=PATIENCE_S):
            assert set(made.refused) == {("meter", "voltage_mv"), ("gone", "power_w")}
            assert "BadNodeIdUnknown" in made.refused["meter", "voltage_mv"]
            assert "no namespace urn:gone" in made.refused["gone", "power_w"]
            await server.set("meter.power", 5)
            await until(lambda: 5 in sink.values(), PATIENCE_S, "the reading")
            found = {each.path: each async for each in made.browse()}
            assert {"meter"} <= set(found) and NAMESPACE in found["meter"].variables[0].node
            # the set-point stands in the Objects folder itself
            assert [credential async for credential in made.discover()] == [made.config.credential("i=85")]
        none = {"m": {"registers": {"power_w": {"node": "ns=1;s=none", "unit": "W"}}}}
        made = adapter({**values, "devices": none})
        async with running(made, sink, connected=False):
            await until(lambda: "flexrelay opcua browse" in made.trouble, PATIENCE_S, "what to do")
