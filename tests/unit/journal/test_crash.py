"""kill -9 while appending, checked from outside: every position whose append returned is there, nothing is torn."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexrelay.journal import SqliteJournal

WRITER = Path(__file__).with_name("writer.py")


def killed(path: Path, run: int, after_s: float) -> list[str]:
    """What the writer had said when it was killed `after_s` after its first word; its last line may be cut."""
    command = [sys.executable, str(WRITER), str(path), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        assert first, process.stderr.read()
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        return [first, *process.stdout.readlines()]


async def crash(folder: Path, times: int) -> None:
    path = folder / "journal.db"
    acknowledged: dict[int, str] = {}
    chance = random.Random(times)
    for run in range(times):
        for line in killed(path, run, chance.random() * 0.3):
            if line.endswith("\n"):
                position, _, text = line.strip().partition(" ")
                assert acknowledged.setdefault(int(position), text) == text, f"position {position} was given twice"
        async with SqliteJournal(path) as journal:
            assert await journal.verify() == journal.end
            entries = await journal.read(0, journal.end)
            stored = {entry.position: entry.payload.split(b";")[0].decode() for entry in entries}
            assert {position for position, text in acknowledged.items() if stored.get(position) != text} == set()
    assert len(acknowledged) >= times


async def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    await crash(tmp_path, 5)


@pytest.mark.soak
async def test_nothing_acknowledged_is_lost_often(tmp_path: Path) -> None:
    await crash(tmp_path, 100)


def test_a_full_disk_is_refused_clearly_and_recovered_from(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(WRITER), str(tmp_path / "journal.db"), "full"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    stored, _, message = done.stdout.strip().partition(" ")
    assert int(stored) > 1
    assert "cannot store now" in message and "goes on by itself" in message
