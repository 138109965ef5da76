"""kill -9 of the process that writes the ledger, at each stage of a block's way to the disk and at random moments.

Whatever a `submit` returned for is there after the restart, nothing is torn, nothing is applied twice.
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from conformance.ledger.contract import TRANSACTIONS
from conformance.ledger.embedded import EmbeddedNetwork
from conformance.ledger.harness import outcome
from integration.ledger import keys
from integration.ledger.writer import STAGES
from support.chance import told_seed

from flexrelay.ledger.embedded import verify
from flexrelay.ledger.port import Committed, Validation

TESTS = Path(__file__).parents[2]
RANDOM_KILLS = int(os.environ.get("FLEXRELAY_LEDGER_KILLS", "3"))


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    """A folder with a fresh ledger and its keys beside it."""
    network = EmbeddedNetwork(keys.SPEC, tmp_path / "ledger")
    keys.store(network, tmp_path / "keys.json")
    async with network.running():
        await network.bootstrap()
    return tmp_path


async def _write_until_killed(place: Path, stage: str, occurrence: int, seconds: float) -> list[list[str]]:
    """[tx id, key, envelope] of what was acknowledged before the process died."""
    arguments = [str(place / "ledger"), str(place / "keys.json"), stage, str(occurrence)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("writer.py")),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        limit=2**20,
    )
    assert process.stdout is not None
    acknowledged = []
    deadline = time.monotonic() + 150
    kill_at = deadline
    async with asyncio.timeout(280):
        while line := await process.stdout.readline():
            if stage == "none" and kill_at == deadline:
                kill_at = time.monotonic() + seconds
            if line.endswith(b"\n"):
                acknowledged.append(line.decode().split()[1:])
            if time.monotonic() >= kill_at and process.returncode is None:
                process.send_signal(signal.SIGKILL)
                kill_at = deadline
        assert await process.wait() == -signal.SIGKILL
    return acknowledged


async def _check(place: Path, acknowledged: list[list[str]]) -> None:
    network = keys.load(place / "ledger", place / "keys.json")
    async with network.running():
        ledger = network.connect("dso")
        for tx_id, _, _ in acknowledged:
            found = await ledger.status(tx_id)
            assert isinstance(found, Committed), f"acknowledged, but lost: {tx_id}"
            assert found.validation is Validation.VALID
        again = random.sample(acknowledged, min(5, len(acknowledged)))
        for _, _, envelope in again:  # what an outbox does after a restart
            await ledger.submit(bytes.fromhex(envelope))
        await network.run("probe.emit", names=[])
        for tx_id, key, _ in acknowledged:
            assert (await outcome(ledger, tx_id, seconds=60)).validation is Validation.VALID
            private = await ledger.evaluate("probe.private_get", {"collection": "both", "key": key})
            assert (await network.get(key), private) in (("1", None), (None, key))
    report = await asyncio.to_thread(verify, place / "ledger", transactions=TRANSACTIONS)
    assert report.ok, report.problems[:5]
    assert report.compared_state


@pytest.mark.parametrize("stage", STAGES)
async def test_killed_at_a_stage(place: Path, stage: str) -> None:
    acknowledged = await _write_until_killed(place, stage, random.randint(1, 8), 0)
    await _check(place, acknowledged)


async def test_killed_at_random_moments(place: Path) -> None:
    """Again and again on the same ledger."""
    everything: list[list[str]] = []
    for _ in range(RANDOM_KILLS):
        everything += await _write_until_killed(place, "none", 0, random.uniform(0, 0.3))
        await _check(place, everything)
    assert everything


@pytest.mark.soak
async def test_killed_a_hundred_times(place: Path) -> None:
    random.seed(told_seed())
    everything: list[list[str]] = []
    hit: dict[str, int] = {}
    for number in range(120):
        stage = "none" if number % 2 else random.choice(STAGES)
        hit[stage] = hit.get(stage, 0) + 1
        everything += await _write_until_killed(place, stage, random.randint(1, 20), random.uniform(0, 0.5))
        await _check(place, everything[-2000:])
    print(f"killed at {hit}; {len(everything)} acknowledged transactions, none lost")
