"""A process that writes a ledger until it is killed.

`python writer.py FOLDER KEYS STAGE OCCURRENCE`: says "A <tx id> <key> <envelope hex>" on stdout for every submit that
returned. When STAGE is reached for the OCCURRENCE-th time, it kills itself with SIGKILL; "none": the parent does it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.ledger.harness import fresh
from integration.ledger.keys import load

from flexrelay.ledger.embedded import blockfile, state
from flexrelay.ledger.embedded.engine import Engine
from flexrelay.ledger.port import Call

STAGES = ("judged", "half written", "written", "synced", "told", "applied")


def plant(stage: str, occurrence: int) -> None:
    """Die at a stage of the block's way to the disk."""
    left = occurrence

    def reach(name: str) -> None:
        nonlocal left
        if name == stage:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def after(owner: Any, name: str, reached: str) -> None:
        honest: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            found = honest(*args, **kwargs)
            reach(reached)
            return found

        setattr(owner, name, wrapped)

    whole = blockfile._write_at

    def in_halves(descriptor: int, data: bytes, offset: int) -> None:
        middle = len(data) // 2
        whole(descriptor, data[:middle], offset)
        reach("half written")
        whole(descriptor, data[middle:], offset + middle)
        reach("written")

    blockfile._write_at = in_halves
    after(Engine, "draft", "judged")
    after(blockfile.BlockFile, "append", "synced")
    after(state.State, "apply", "applied")
    before = state.State.apply

    def told(*args: Any, **kwargs: Any) -> Any:
        reach("told")
        return before(*args, **kwargs)

    state.State.apply = told  # type: ignore[method-assign] # a place to die at


async def main(folder: Path, keys: Path, stage: str, occurrence: int) -> None:
    network = load(folder, keys)
    async with network.running():
        ledger = network.connect("dso")
        plant(stage, occurrence)

        async def work() -> None:
            while True:
                key = fresh()
                intent = network.intent("probe.private_put", collection="both", key=key)
                if int(key[-1], 16) >= 4:  # most of the time a public read-modify-write
                    intent = network.intent("probe.add", key=key, value="1")
                prepared = await ledger.prepare(Call(intent, {"value": key.encode()}))
                await ledger.submit(prepared.envelope)
                os.write(1, f"A {prepared.tx_id} {key} {prepared.envelope.hex()}\n".encode())

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(work())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
