"""No room for a whole site: what comes is refused clearly, nothing ends, and it goes on when there is room."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from flexrelay.journal.sqlite import SqliteJournal
from flexrelay.ledger.embedded import verify

TESTS = Path(__file__).parents[2]


async def test_a_full_disk_under_a_whole_site(tmp_path: Path) -> None:
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        timeout=280,
        check=False,
    )
    errors = ran.stderr.decode()
    assert ran.returncode == 0, errors[-6000:]
    told = json.loads(ran.stdout)
    assert all(count > 0 for count in told["while_full"]["refused"].values()), told["while_full"]
    assert all("journal" in text and "cannot store now" in text for text in told["texts"]["readings"])
    assert "Traceback" not in errors, errors[-6000:]
    assert len(errors.splitlines()) < 200, errors[-6000:]
    async with SqliteJournal(tmp_path / "dso" / "journal.db") as journal:
        await journal.verify()
        stored = []
        while entries := await journal.read(len(stored), 1000):
            stored += [measurement.observed_at for entry in entries for measurement in entry.measurements]
    assert sorted(stored) == sorted(set(stored)) and set(told["taken"]) <= set(stored)
    assert told["outcomes"] == ["CommittedIntent"] and told["balance"] == told["paid"]
    assert told["anchors"] >= 1
    report = await asyncio.to_thread(verify, tmp_path / "ledger")
    assert report.ok, report.problems
