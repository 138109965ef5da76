"""Batteries on other protocols than MQTT: the plant as the simulators see it, when it measures, what must be there."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import tomllib
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from flexrelay.demo import opcua
from flexrelay.demo.barrier import StoryStuck
from flexrelay.demo.lines import Boundaries, UnsignedFleet, check_libraries
from flexrelay.demo.plants import BatteryPlant, MeterPlant
from flexrelay.demo.unsigned import UnsignedDevice

T0 = 1_463_522_400_000
ISP_MS = 900_000


def battery(name: str = "s3", protocol: str = "lwm2m", org: str = "agg-a") -> UnsignedDevice:
    plant = BatteryPlant(rated_w=3_000, capacity_wh=10_000, start_ms=T0, soc_permille=0)
    return UnsignedDevice(f"battery-{name}", f"did:flexrelay:demo:{name}", protocol, org, plant, T0)


def set_point(power_w: int, first: int, last: int) -> dict[str, int]:
    return {"power_w": power_w, "from_ms": T0 + first * ISP_MS, "until_ms": T0 + last * ISP_MS}


def test_battery_and_meter_show_one_plant() -> None:
    device = battery()
    simulator, meter = device.simulator(900), MeterPlant(device.plant)
    answer = simulator.obey("c-1", "set_power", set_point(2_000, 1, 3))
    assert answer is not None and answer.state == "acked"
    for boundary in (0, 1, 2, 3, 4):
        told = simulator.sample(T0 + boundary * ISP_MS).registers
        assert told.pop("soc_permille") == told["import_j"] // 36_000
        assert told == meter.registers(boundary)
    assert meter.registers(4)["import_j"] == 2_000 * 1_800


def test_a_reading_of_the_past_is_as_it_was() -> None:
    device = battery()
    device.plant.registers(10)
    simulator = device.simulator(900)
    simulator.obey("c-1", "set_power", set_point(1_000, 10, 12))
    assert simulator.sample(T0 + 3 * ISP_MS).registers["import_j"] == 0
    assert simulator.sample(T0 + 12 * ISP_MS).registers["import_j"] == 1_000 * 1_800


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (set_point(3_001, 1, 2), "power_w must be from -3000 to 3000 W"),
        (set_point(-3_001, 1, 2), "power_w must be from -3000 to 3000 W"),
        (set_point(1_000, 2, 2), "until_ms must be after from_ms"),
        (set_point(1_000, 1, 4), "the interval is over"),
    ],
)
def test_refusals(parameters: dict[str, int], why: str) -> None:
    device = battery()
    device.plant.registers(4)
    answer = device.simulator(900).obey("c-1", "set_power", parameters)
    assert answer is not None and (answer.state, answer.detail) == ("failed", why)


async def test_measuring_begins_with_the_story_and_follows_its_clock() -> None:
    now = [T0 + 2 * ISP_MS]
    plan = Boundaries(T0, T0, 900, wall=lambda: now[0])
    async with aclosing(plan.due(0, 2)) as instants:
        first = asyncio.ensure_future(anext(instants))
        await asyncio.sleep(0)
        assert not first.done(), "nobody has begun"
        plan.begun.set()
        assert [await first, await anext(instants), await anext(instants)] == [T0, T0 + ISP_MS, T0 + 2 * ISP_MS]
        later = asyncio.ensure_future(anext(instants))
        await asyncio.sleep(0.1)
        assert not later.done(), "its time has not come"
        now[0] += ISP_MS
        assert await asyncio.wait_for(later, 60) == T0 + 3 * ISP_MS


def test_missing_libraries_are_named_with_what_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    check_libraries()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "asyncua" else found(name))
    with pytest.raises(StoryStuck, match=r"the extras opcua are not installed: .*flexrelay\[opcua\]"):
        check_libraries()


async def test_lines_are_prepared_also_where_a_port_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sections are TOML that the adapters take, and secrets are for their owner's eyes."""
    (tmp_path / "secrets").mkdir()
    fleet = UnsignedFleet([battery(), battery("s2", "opcua", "agg-b")], tmp_path, "seed", first_ms=T0, isp_seconds=900)
    free = opcua.free_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr(opcua, "free_port", lambda: ports.pop() if ports else free())
        async with fleet:
            assert not ports, "the taken port was tried"
            assert fleet.sections("dso") == ""
            a, b = (tomllib.loads("[[gateways]]\n" + fleet.sections(org))["gateways"][0] for org in ("agg-a", "agg-b"))
            lwm2m: dict[str, Any] = a["adapters"]["lwm2m"]
            assert lwm2m["commands"] == {"via": "set_point", "rated_w": 3_000}
            keys = tmp_path / lwm2m["coaps"]["psk_file"]
            assert keys.read_text().startswith("battery-s3:") and keys.stat().st_mode & 0o777 == 0o600
            assert set(b["adapters"]["opcua"]["devices"]["battery-s2"]["registers"]) == {
                "import_j",
                "export_j",
                "power_w",
                "soc_permille",
            }
            assert (tmp_path / "agg-b" / "pki" / "own" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert fleet.bindings() == {
        "did:flexrelay:demo:s3": ("lwm2m", "battery-s3"),
        "did:flexrelay:demo:s2": ("opcua", "urn:flexrelay:simulation/battery-s2"),
    }
