"""A full disk: a clear error, nothing torn, and the ledger goes on when there is room again."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conformance.ledger.contract import TRANSACTIONS
from conformance.ledger.embedded import EmbeddedNetwork
from integration.ledger import keys

from flexrelay.ledger.embedded import verify

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("file", ["blocks", "state"])
async def test_a_full_disk(tmp_path: Path, file: str) -> None:
    network = EmbeddedNetwork(keys.SPEC, tmp_path / "ledger")
    keys.store(network, tmp_path / "keys.json")
    async with network.running():
        await network.bootstrap()
    script = str(Path(__file__).with_name("disk_full.py"))
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, script, str(tmp_path / "ledger"), str(tmp_path / "keys.json"), file],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    report = json.loads(ran.stdout)
    assert len(report["errors"]) == 3, report
    words = "no space" if file == "blocks" else "durable but not applied yet"
    assert words in report["errors"][0]
    assert words in report["troubles"][0] and report["troubles"][1] == ""
    assert report["written"] >= 1
    assert set(report["found"]) == {"VALID"}
    assert all(report["values"])
    found = await asyncio.to_thread(verify, tmp_path / "ledger", transactions=TRANSACTIONS)
    assert found.ok, found.problems
    assert found.compared_state
