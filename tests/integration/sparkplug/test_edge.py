"""What Sparkplug adds to MQTT, against sparkplug-client: births, aliases, gaps, deaths, primary host, node metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conformance.adapters.sparkplug.rig import section
from support.mosquitto import mosquitto
from support.sparkplug_edge import ACCOUNTS, GROUP, NODE, Edge, need_sparkplug_client

from flexrelay.demo.broker import Mosquitto
from flexrelay_adapters.sparkplug import SparkplugAdapter, make_adapter
from flexrelay_sdk import DeviceFacts, Frame
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.mosquitto


@asynccontextmanager
async def broker_of(folder: Path) -> AsyncIterator[Mosquitto]:
    need_sparkplug_client()
    async with mosquitto(folder / "broker", ACCOUNTS) as broker:
        yield broker


def made(broker: Mosquitto, **changes: Any) -> SparkplugAdapter:
    return make_adapter("plant", section(broker.port, **changes), Path(), NoNativeCodec())


async def test_aliases_are_resolved_and_the_frame_decodes_alone(tmp_path: Path) -> None:
    async with broker_of(tmp_path) as broker, Edge.started(broker.port, tmp_path / "edge.log") as edge:
        adapter, sink = made(broker), RecordingSink()
        async with running(adapter, sink):
            await edge.until("born")
            await edge.send(7)
            await until(lambda: sink.values() == [7])
        frame: Frame = sink.frames[-1]
        assert b"Meter/Power" in frame.payload and frame.channel == f"spBv1.0/{GROUP}/DDATA/{NODE}/meter1"
        stranger = made(broker).codec_for(frame.channel)
        assert stranger is not None
        assert [dict(m.registers) for m in stranger.decode(frame).measurements] == [{"power_w": 7}]


async def test_births_tell_what_a_device_is(tmp_path: Path) -> None:
    async with broker_of(tmp_path) as broker, Edge.started(broker.port, tmp_path / "edge.log") as edge:
        adapter, sink = made(broker), RecordingSink()
        async with running(adapter, sink):
            await edge.until("born")
            await until(lambda: len(adapter.facts()) == 1, 60)
        told = DeviceFacts("Acme", "Meter 3", "SN-77", "1.2.3")
        assert list(adapter.facts()) == [(f"{GROUP}/{NODE}/meter1", told)]


async def test_a_gap_is_kept_and_asks_for_a_rebirth(tmp_path: Path) -> None:
    async with (
        broker_of(tmp_path) as broker,
        Edge.started(broker.port, tmp_path / "edge.log", primary=False) as edge,
    ):
        await edge.until("born")
        adapter, sink = made(broker), RecordingSink()
        async with running(adapter, sink):
            await edge.do("raw", device="meter1", data="")  # data before any birth that this host knows
            await edge.until("rebirth")
            await edge.until("born", 2)
            await edge.send(1)
            await until(lambda: sink.values() == [1])
            await asyncio.sleep(0.3)
            await edge.do("skip", count=3)
            await edge.send(2)
            await edge.until("rebirth", 2)
            await edge.send(3)
            await until(lambda: sink.values() == [1, 2, 3])
            assert adapter.stats.gaps == 1 and adapter.stats.rebirths == 2
            await asyncio.sleep(0.3)
            for number in range(4, 300):  # over the end of the sequence numbers
                await edge.send(number)
            await until(lambda: len(sink.values()) == 299)
            assert adapter.stats.gaps == 1 and edge.count("rebirth") == 2


async def test_data_without_a_birth_are_dead_letters_with_their_reason(tmp_path: Path) -> None:
    async with (
        broker_of(tmp_path) as broker,
        Edge.started(broker.port, tmp_path / "edge.log", primary=False) as edge,
    ):
        await edge.until("born")
        adapter, sink = made(broker, rebirth_interval_s=0), RecordingSink()
        async with running(adapter, sink):
            await edge.send(1)
            await until(lambda: bool(sink.dead))
            assert [reason for _, reason in sink.dead] == ["no_birth"]
            await edge.until("born", 2)
            await edge.send(2)
            await until(lambda: sink.values() == [2])


async def test_what_is_measured_while_the_host_is_away_comes_as_history(tmp_path: Path) -> None:
    async with broker_of(tmp_path) as broker, Edge.started(broker.port, tmp_path / "edge.log") as edge:
        sink = RecordingSink()
        async with running(made(broker), sink):
            await edge.until("born")
            await edge.send(1)
            await until(lambda: sink.values() == [1])

        def farewell() -> bool:
            return [each["state"]["online"] for each in edge.events if each["event"] == "state"][-1:] == [False]

        await until(farewell, what="the host's farewell")
        for number in (2, 3, 4):
            assert (await edge.send(number))["held"]
            await asyncio.sleep(0.002)
        async with running(made(broker), sink):
            await until(lambda: sink.values() == [1, 2, 3, 4])
        assert sink.dead == []


async def test_a_gateway_that_cannot_store_says_that_it_is_offline(tmp_path: Path) -> None:
    async with broker_of(tmp_path) as broker, Edge.started(broker.port, tmp_path / "edge.log") as edge:
        sink = RecordingSink()
        async with running(made(broker), sink):
            await edge.until("born")
            sink.refuse = 1
            await edge.send(1)
            await edge.until("born", 2)
            states = [each["state"]["online"] for each in edge.events if each["event"] == "state"]
            assert states[-2:] == [False, True]


async def test_compressed_births_and_named_metrics(tmp_path: Path) -> None:
    async with (
        broker_of(tmp_path) as broker,
        Edge.started(broker.port, tmp_path / "edge.log", aliases=False, compress=True) as edge,
    ):
        adapter, sink = made(broker), RecordingSink()
        async with running(adapter, sink):
            await edge.until("born")
            await edge.send(5)
            await until(lambda: sink.values() == [5])
            assert adapter.stats.births == 2 and adapter.stats.rebirths == 0


async def test_deaths_are_seen_and_a_device_that_died_is_not_discovered(tmp_path: Path) -> None:
    devices = ("meter1", "meter2")
    async with (
        broker_of(tmp_path) as broker,
        Edge.started(broker.port, tmp_path / "edge.log", devices=devices) as edge,
    ):
        adapter = made(broker)

        async def alive() -> list[str]:
            return [each async for each in adapter.discover()]

        async with running(adapter, RecordingSink()):
            await edge.until("born")
            await until(lambda: adapter.stats.births == 3)
            assert await alive() == [f"{GROUP}/{NODE}", f"{GROUP}/{NODE}/meter1", f"{GROUP}/{NODE}/meter2"]
            await edge.do("device_death", device="meter1")
            await until(lambda: adapter.stats.deaths == 1)
            assert f"{GROUP}/{NODE}/meter1" not in await alive()
            await edge.do("sleep")
            await until(lambda: adapter.stats.deaths == 2)
            assert await alive() == []
