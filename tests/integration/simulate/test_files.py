"""`flexrelay simulate` with files: what is dropped comes into the journal exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.simulated import NAMES, PATIENCE_S, devices, expected, gateway, living, plan

from flexrelay_adapters.files import make_adapter
from flexrelay_adapters.files.simulator import FilesSimulator, make_simulator
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import until

pytestmark = pytest.mark.timeout(300)
UNITS = {"import_j": "J", "export_j": "J", "power_w": "W", "voltage_mv": "mV", "current_ma": "mA"}
UNITS["soc_permille"] = "permille"


def simulator(folder: Path, **changes: Any) -> FilesSimulator:
    return make_simulator({"folder": "drop", "batch": 3, **changes}, folder, devices(), plan(), "a")


async def test_readings_of_every_kind_are_in_the_journal_exactly(tmp_path: Path) -> None:
    (tmp_path / "drop" / "in").mkdir(parents=True)
    codec = {
        "kind": "json",
        "observed_at": {"pointer": "/observed_at", "form": "ms"},
        "seq": "/seq",
        "registers": {name: {"pointer": f"/{name}", "unit": unit, "required": False} for name, unit in UNITS.items()},
    }
    section = {"folder": "drop", "poll_s": 0.05, "settle_s": 0, "codec": codec}
    adapter, made = make_adapter("drop", section, tmp_path, NoNativeCodec()), simulator(tmp_path)
    async with gateway(tmp_path / "gw", "files", NAMES) as found, living(made, adapter, found):
        for name, wanted in expected(5, 12, "a").items():
            await found.until(name, lambda readings: len(readings) >= 12, f"12 readings of {name}")
            got = await found.registers(name)
            assert {at: got[at] for at in wanted} == wanted, name
        await until(lambda: made.stats.confirmed >= 60, PATIENCE_S, "files to be gone")


async def test_files_that_nobody_takes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "drop" / "in").mkdir(parents=True)
    made = simulator(tmp_path, waiting=2)
    running = asyncio.create_task(made.run())
    try:
        await until(lambda: made.stats.sent == 5 * 2 * 3, PATIENCE_S, "two files of each")
        await asyncio.sleep(0.5)
        assert made.stats.sent == 30 and len(list((tmp_path / "drop" / "in").glob("*/*.json"))) == 10
        next((tmp_path / "drop" / "in").glob("*/*.json")).unlink()
        await until(lambda: made.stats.sent == 33 and made.stats.confirmed == 3, PATIENCE_S, "another")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"^folder: .*drop/in"):
        await simulator(tmp_path).run()
