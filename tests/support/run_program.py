"""`flexrelay run` on a folder of the organisation dso, as a process of its own, and what its files say meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

WAIT_S = 120.0


@asynccontextmanager
async def running(folder: Path, *, killed: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """`flexrelay run`, up; ended as a person ends it, or as the system does."""
    with (folder / "run.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from flexrelay.cli.main import main; main()",
            "run", str(folder), "--http-port", "0", "--json",
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            line = await process.stdout.readline()
        assert line, (folder / "run.log").read_text()[-3000:]
        assert json.loads(line)["organisations"] == ["dso"]
        yield process
        assert process.returncode is None, (folder / "run.log").read_text()[-3000:]
        if killed:
            process.kill()
            await process.wait()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(WAIT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                raise


def rows(folder: Path, query: str, file: Path | None = None) -> set[str]:
    """The first column, as another process sees it; of the store unless another file is named."""
    with closing(sqlite3.connect(f"file:{file or folder / 'dso' / 'store.db'}?mode=ro", uri=True)) as connection:
        try:
            return {str(row[0]) for row in connection.execute(query)}
        except sqlite3.OperationalError:
            return set()


async def until(condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {WAIT_S:g} s; {log.read_text()[-3000:]}"
        await asyncio.sleep(0.1)
