"""kill -9 of the gateway in mid-stream: what a device was answered 200 for is in the journal, whole and once.

`make soak` runs the full count.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from support.http_device import free_port
from support.http_gateway import START_MS
from support.load import JournalChecker

DEVICES = 20
CI_KILLS, SOAK_KILLS = 5, 120
TESTS = Path(__file__).parents[2]


async def live(number: int, port: int, acknowledged: list[bytes]) -> None:
    """Counts up; sends each reading until it is answered."""
    headers = {"authorization": f"Bearer token of meter{number}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10) as client:
        count = 0
        while True:
            payload = b'{"d":%d,"t":%d,"e":%d}' % (number, START_MS + count * 1000, count)
            with suppress(httpx.TransportError):
                answer = await client.post("/readings", content=payload)
                if answer.status_code == 200:
                    acknowledged.append(payload)
                    count += 1
                    continue
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)


async def campaign(folder: Path, kills: int, chance: random.Random) -> None:
    port = free_port()
    lines = [f"meter{n}:{hashlib.sha256(b'token of meter%d' % n).hexdigest()}\n" for n in range(DEVICES)]
    (folder / "tokens").write_text("".join(lines))
    answers: list[list[bytes]] = [[] for _ in range(DEVICES)]
    lives = [asyncio.create_task(live(number, port, answers[number])) for number in range(DEVICES)]
    checker = JournalChecker(folder / "journal.db")
    acknowledged: Counter[bytes] = Counter()
    try:
        for _ in range(kills):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "support.http_gateway", str(folder), str(port), str(DEVICES), cwd=TESTS
            )
            before = sum(map(len, answers))
            try:
                async with asyncio.timeout(60):
                    while sum(map(len, answers)) < before + 2 * DEVICES:
                        assert process.returncode is None, "the gateway ended by itself"
                        await asyncio.sleep(0.01)
                await asyncio.sleep(chance.uniform(0, 0.5))
            finally:
                process.kill()
                await process.wait()
            await asyncio.sleep(0.1)  # what it has sent before arrives
            acknowledged = Counter(payload for each in answers for payload in each)
            await checker.check(acknowledged)
            assert not any(task.done() for task in lives)
    finally:
        for task in lives:
            task.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
    print(f"\n{kills} kills, {sum(acknowledged.values()):,} acknowledged, {len(checker.stored):,} in the journal")


@pytest.mark.timeout(240)
async def test_a_few_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, CI_KILLS, random.Random(5))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    await campaign(tmp_path, SOAK_KILLS, random.Random(seed))
