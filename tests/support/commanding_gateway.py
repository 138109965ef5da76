"""Any adapter's commanding path in a process that is made to be killed: store, dispatcher, router, adapter.

`python -m support.commanding_gateway FOLDER` with one line of JSON on stdin: {"type", "section": the adapter and its
configuration, "credential": of the one device that is commanded, "commands": [{"order", "name", "parameters",
"expires_at"}, …]}, which are accepted (again). It prints a line of JSON for each change of a command's state, and runs
until it is killed. Its clock is the wall's and what stands in FOLDER/ahead_ms, so that no test has to wait for a
command's expiry, nor to be quicker than it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import flexrelay_sdk.clock
from flexrelay.adapters import command_target, load_adapter
from flexrelay.dispatch import DISPATCH, Dispatcher, DispatchOrder, OrderedIsp, Planned
from flexrelay.store import Store
from flexrelay_sdk.testkit import RecordingSink

DID = "did:example:device"
PATIENCE_S = 150.0


class CommandingGateway:
    """The process; `states` by order, `to_end` as its store says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.states: dict[str, str] = {}
        self.to_end = -1
        self._process = process
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def started(
        cls, folder: Path, kind: str, section: Mapping[str, Any], credential: str, *commands: Mapping[str, Any]
    ) -> AsyncIterator[CommandingGateway]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.commanding_gateway", str(folder), cwd=Path(__file__).parents[1],
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        gateway = cls(process)
        assert process.stdin is not None
        told = {"type": kind, "section": section, "credential": credential, "commands": commands}
        process.stdin.write(json.dumps(told).encode() + b"\n")
        try:
            yield gateway
        finally:
            await gateway.kill()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        assert await self._process.wait() == -signal.SIGKILL, "it ended by itself"
        await self._reader

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert self._process.returncode is None, f"the gateway ended before {what}"
                await asyncio.sleep(0.01)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if "to_end" in event:
                self.to_end = event["to_end"]
            else:
                self.states[event["order"]] = event["state"]


def put_forward(folder: Path, by_ms: int) -> None:
    """The clock of the processes, at once for whoever reads it: the file is exchanged whole."""
    (folder / "ahead.new").write_text(str(by_ms))
    (folder / "ahead.new").rename(folder / "ahead_ms")


async def main(folder: Path, told: dict[str, Any]) -> None:
    ahead, wall_ms = folder / "ahead_ms", flexrelay_sdk.clock.wall_ms

    def clock() -> int:
        return wall_ms() + int(ahead.read_text() if ahead.exists() else 0)

    flexrelay_sdk.clock.wall_ms = clock  # the adapter is imported after this, and takes its clock from there
    adapter = load_adapter("dso", "plant", {"type": told["type"], **told["section"]}, folder)
    target = command_target("dso", {"plant": adapter}, lambda did: [(adapter.protocol, told["credential"])])
    async with Store(folder / "store.db", [DISPATCH]) as store, asyncio.TaskGroup() as group:
        group.create_task(adapter.run(RecordingSink()))
        async with Dispatcher(store, "dso", target, clock=clock) as dispatcher:
            for each in told["commands"]:
                order = DispatchOrder(each["order"], "agg", (OrderedIsp(1, 0, 900_000, 1),))
                planned = Planned(DID, told["credential"], each["name"], each["parameters"], 0, each["expires_at"])
                await dispatcher.accept(order, [planned])
            await _tell(store, dispatcher, [each["order"] for each in told["commands"]])


async def _tell(store: Store, dispatcher: Dispatcher, orders: list[str]) -> None:
    """What becomes of them, until cancelled."""
    known: dict[str, str] = {}
    query = "SELECT count(*) FROM dispatch_command WHERE end_at IS NOT NULL"
    while True:
        for order in orders:
            for record in await dispatcher.commands(order):
                if known.get(order) != record.state.value:
                    known[order] = record.state.value
                    print(json.dumps({"order": order, "state": record.state.value}), flush=True)
        waiting = await store.read(lambda connection: connection.execute(query).fetchone()[0])
        if known.get("to end") != str(waiting):
            known["to end"] = str(waiting)
            print(json.dumps({"to_end": waiting}), flush=True)
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.stdin.readline())))
