"""A gateway's commanding path in a process that is made to be killed: store, dispatcher, router, Modbus adapter.

`python -m support.modbus_gateway FOLDER` with one line of JSON on stdin: {"section": the adapter's configuration,
"commands": [{"order", "name", "parameters", "expires_at"}, …]}, which are accepted (again). It prints a line of JSON
for each change of a command's state, and runs until it is killed. Its clock is the wall's and what stands in
FOLDER/ahead_ms, so that no test has to wait for a command's expiry, nor to be quicker than it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from flexrelay.adapters import command_target
from flexrelay.dispatch import DISPATCH, Dispatcher, DispatchOrder, OrderedIsp, Planned
from flexrelay.store import Store
from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import RecordingSink

DID = "did:example:battery"


async def main(folder: Path, told: dict[str, Any]) -> None:
    ahead = folder / "ahead_ms"

    def clock() -> int:
        return wall_ms() + int(ahead.read_text() if ahead.exists() else 0)

    adapter = ModbusAdapter(ModbusConfig.from_section("plant", told["section"]), clock=clock)
    (device, *_) = adapter.config.devices.values()
    target = command_target("dso", {"plant": adapter}, lambda did: [("modbus", device.credential)])
    async with Store(folder / "store.db", [DISPATCH]) as store, asyncio.TaskGroup() as group:
        group.create_task(adapter.run(RecordingSink()))
        async with Dispatcher(store, "dso", target, clock=clock) as dispatcher:
            for each in told["commands"]:
                order = DispatchOrder(each["order"], "agg", (OrderedIsp(1, 0, 900_000, 1),))
                planned = Planned(DID, device.credential, each["name"], each["parameters"], 0, each["expires_at"])
                await dispatcher.accept(order, [planned])
            known: dict[str, str] = {}
            while True:
                for each in told["commands"]:
                    for record in await dispatcher.commands(each["order"]):
                        if known.get(each["order"]) != record.state.value:
                            known[each["order"]] = record.state.value
                            print(json.dumps({"order": each["order"], "state": record.state.value}), flush=True)
                waiting = await store.read(
                    lambda connection: connection.execute(
                        "SELECT count(*) FROM dispatch_command WHERE end_at IS NOT NULL"
                    ).fetchone()[0]
                )
                if known.get("to end") != str(waiting):
                    known["to end"] = str(waiting)
                    print(json.dumps({"to_end": waiting}), flush=True)
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.stdin.readline())))
