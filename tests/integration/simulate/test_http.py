"""`flexrelay simulate` over HTTP: batches with their keys come into the journal exactly, commands are obeyed."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.http_device import free_port
from support.simulated import (
    INTERVAL_S,
    NAMES,
    PATIENCE_S,
    command,
    devices,
    expected,
    gateway,
    living,
    obeyed_with_ramp,
    plan,
    shown,
    told,
    until_stored,
)

from flexrelay_adapters.http import HttpAdapter, make_adapter
from flexrelay_adapters.http.simulator import HttpSimulator, make_simulator
from flexrelay_sdk import CommandState
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.simulation import Plan
from flexrelay_sdk.testkit import running, until

pytestmark = pytest.mark.timeout(300)
UNITS = {"import_j": "J", "export_j": "J", "power_w": "W", "voltage_mv": "mV", "current_ma": "mA"}
UNITS["soc_permille"] = "permille"


def adapter(folder: Path, port: int) -> HttpAdapter:
    digests = [f"{name}:{hashlib.sha256(b'token of ' + name.encode()).hexdigest()}\n" for name in NAMES]
    (folder / "tokens").write_text("".join(digests))
    registers = {name: {"pointer": f"/{name}", "unit": unit, "required": False} for name, unit in UNITS.items()}
    codec = {
        "kind": "json",
        "observed_at": {"pointer": "/observed_at", "form": "ms"},
        "seq": "/seq",
        "registers": registers,
    }
    section = {"port": port, "tokens_file": "tokens", "commands": "/commands", "codec": codec}
    return make_adapter("push", section, folder, NoNativeCodec())


def simulator(port: int, when: Plan, seed: str = "a", **changes: Any) -> HttpSimulator:
    section = {"port": port, "token": "token of {device}", "batch": 3, "backoff_s": 0.05, **changes}
    return make_simulator(section, Path(), devices(seed=seed), when, seed)


@pytest.mark.parametrize("seed", ["a", "b"])
async def test_readings_of_every_kind_are_in_the_journal_exactly(tmp_path: Path, seed: str) -> None:
    port, simulated = free_port(), expected(5, 12, seed)
    async with gateway(tmp_path / "gw", "http", NAMES) as found:
        async with living(simulator(port, plan(), seed), adapter(tmp_path, port), found):
            for name, wanted in simulated.items():
                await found.until(name, lambda readings: len(readings) >= 12, f"12 readings of {name}")
                got = await found.registers(name)
                assert {at: got[at] for at in wanted} == wanted, name
        for name in NAMES:
            counts = [m.seq for m in await found.readings(name)]
            assert counts == list(range(1, len(counts) + 1)), f"{name}: in order, each once"
        assert await found.journal.letters() == []


async def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    assert expected(9, 12, "a") == expected(9, 12, "a") != expected(9, 12, "b")


async def test_a_command_is_obeyed_with_ramp_and_state_of_charge_and_confirmed(tmp_path: Path) -> None:
    port, when = free_port(), plan()
    async with gateway(tmp_path / "gw", "http", NAMES) as found:
        target, simulated = adapter(tmp_path, port), simulator(port, when)
        async with living(simulated, target, found):
            await until_stored(found, 20)
            order = command("set_power", "battery-3", power_w=1_500)
            assert await told(target, order) is CommandState.ACKED
            await found.until("battery-3", shown(order), "the confirmation")
            refused = command("set_power", "battery-3", power_w=3_001)
            assert await told(target, refused) is CommandState.FAILED
            limit = command("limit_power", "pv-2", min_power_w=-500, max_power_w=0)
            assert await told(target, limit) is CommandState.ACKED
            await found.until("pv-2", lambda got: got[-1].registers["power_w"] == -500, "the curtailment")
            meter = command("switch", "meter-1", on=0)
            assert await told(target, meter) is CommandState.FAILED  # a meter obeys nobody
            await until(lambda: simulated.stats.commands == 4, PATIENCE_S, "the counter of commands")
        battery = await found.registers("battery-3")
        obeyed_with_ramp(battery, 1_500, 60)
        first, last = battery[min(battery)], battery[max(battery)]
        stored = (last["import_j"] - first["import_j"]) * 950 // 1000  # of 10 kWh
        assert last["soc_permille"] - first["soc_permille"] == pytest.approx(stored / 36_000, abs=2)


async def test_a_gateway_that_is_away_and_comes_back_gets_everything_once(tmp_path: Path) -> None:
    port, when = free_port(), plan()
    simulated = simulator(port, when)
    async with gateway(tmp_path / "gw", "http", NAMES) as found:
        async with living(simulated, adapter(tmp_path, port), found):
            await until_stored(found, 20)
        again = simulator(port, when)
        task = asyncio.create_task(again.run())
        try:
            await until(lambda: again.stats.reconnects >= 5, PATIENCE_S, "tries at a gateway that is away")
            assert not task.done() and again.stats.confirmed == 0
            async with running(adapter(tmp_path, port), found.ingest):
                # the same devices from their begin: what was there already is recognised
                await until(lambda: again.stats.confirmed >= 60, PATIENCE_S, "the readings after the outage")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert found.ingest.outcomes["duplicate"] > 0
        for name in NAMES:
            counts = [m.seq for m in await found.readings(name)]
            assert counts == list(range(1, len(counts) + 1)), f"{name}: each once, none is missing"


async def test_a_wrong_token_is_said_and_ends_it(tmp_path: Path) -> None:
    port = free_port()
    async with gateway(tmp_path / "gw", "http", NAMES) as found, running(adapter(tmp_path, port), found.ingest):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionError, match=r"answers .* with 401.*check token"):
                await simulator(port, plan(), token="wrong").run()
        assert found.stored == 0


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for section, words in (
        ({}, "^token"),
        ({"token": "x", "port": 0}, "^port"),
        ({"token": "x", "batch": 0}, "^batch"),
        ({"token": "x", "ca": "nothing.pem"}, "^ca: there is no file"),
        ({"token": "x", "identities": "nowhere"}, "^identities"),
        ({"token": "x", "speed": 1}, "^speed"),
    ):
        with pytest.raises(ValueError, match=words):
            make_simulator(section, tmp_path, devices(), plan(interval_s=INTERVAL_S), "a")
