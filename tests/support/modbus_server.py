"""pymodbus as a device, in a process of its own, told over its stdin what to do.

As a program: `python modbus_server.py PORT` reads one line of JSON {"units": {"1": [[address, [registers]], …]},
"queue_at": address or -1, "write_at": address or -1, "more_ports": [port, …]} and then orders. At `queue_at` of unit 1
a reading (s32) is handed over at each request; when there is none the device is busy.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ModbusServer:
    """Starts, tells and kills the program below."""

    def __init__(
        self,
        units: dict[int, list[tuple[int, list[int]]]],
        *,
        queue_at: int = -1,
        write_at: int = -1,
        more_ports: int = 0,
    ) -> None:
        """With `more_ports` the same units answer at so many other endpoints too."""
        self.port = free_port()
        self.more_ports = [free_port() for _ in range(more_ports)]
        self.acts: list[int] = []
        self.writes: list[tuple[int, int, list[int]]] = []
        """(Unit, address, registers) of every write that was taken."""
        self._setup = {"units": {str(unit): image for unit, image in units.items()}, "queue_at": queue_at}
        self._setup["write_at"] = write_at
        self._setup["more_ports"] = self.more_ports
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__)), str(self.port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        await self.tell(self._setup)

    async def stop(self) -> None:
        """Killed, as a device whose power is cut."""
        if self._process is None or self._reader is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await self._reader
        self._process = None

    async def tell(self, order: dict[str, Any]) -> Any:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(120):
            return await self._answers.get()

    async def __aenter__(self) -> ModbusServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if "answer" in event:
                self._answers.put_nowait(event["answer"])
            elif "act" in event:
                self.acts.append(event["act"])
            elif "write" in event:
                self.writes.append(tuple(event["write"]))


class _Device:
    """The program."""

    def __init__(self, queue_at: int, write_at: int) -> None:
        self.queue_at, self.write_at = queue_at, write_at
        self.queue: deque[Any] = deque()
        self.flood = (0, 0)
        self.paused = False
        self.behaviour = "obey"
        self.mangle = ""
        """What happens to the next answer; "silent" stays."""
        self.delay_s: dict[int, float] = {}
        self.own = False

    def say(self, **event: Any) -> None:
        print(json.dumps(event), flush=True)

    async def act(
        self, unit: int, function: int, start: int, address: int, count: int, registers: list[int], values: Any
    ) -> Any:
        from pymodbus.constants import ExcCodes

        if self.own:
            return None
        if unit in self.delay_s:
            await asyncio.sleep(self.delay_s[unit])
        if values is not None:
            if self.behaviour == "silent":
                self.mangle = "empty"
                return ExcCodes.DEVICE_FAILURE
            if self.behaviour == "refuse":
                return ExcCodes.ILLEGAL_VALUE
            if self.behaviour == "fail":
                return ExcCodes.DEVICE_FAILURE
            if self.behaviour == "busy":
                self.behaviour = "obey"
                return ExcCodes.DEVICE_BUSY
            if address == self.write_at:
                self.say(
                    act=int.from_bytes(b"".join(int(v).to_bytes(2, "big") for v in values[:2]), "big", signed=True)
                )
            self.say(write=[unit, address, [int(v) for v in values]])
            if self.behaviour == "lie":
                values[:] = [0] * len(values)
            return None
        if unit != 1 or self.queue_at < 0 or not address <= self.queue_at < address + count:
            return None
        item = self.next()
        if item is None:
            return ExcCodes.DEVICE_BUSY
        at = self.queue_at - start
        if isinstance(item, int):
            registers[at : at + 3] = [item >> 16 & 0xFFFF, item & 0xFFFF, 0]
            return None
        if item.startswith("exception "):
            return ExcCodes(int(item.split()[1]))
        if item == "absent":
            registers[at : at + 2] = [0x8000, 0]
        elif item.startswith("scale "):
            registers[at + 2] = int(item.split()[1])
        else:
            self.mangle = item
        return None

    def next(self) -> Any:
        if self.paused:
            return None
        if self.queue:
            return self.queue.popleft()
        number, end = self.flood
        if number < end:
            self.flood = (number + 1, end)
            return number
        return None

    def packet(self, sending: bool, data: bytes) -> bytes:
        if not sending or not self.mangle:
            return data
        how, self.mangle = self.mangle, "silent" if self.mangle == "silent" else ""
        length = int.from_bytes(data[4:6], "big")
        return {
            "empty": b"",
            "silent": b"",
            "other transaction": bytes([data[0] ^ 1]) + data[1:],
            "no transaction": b"\0\0" + data[2:],
            "other unit": data[:6] + bytes([data[6] ^ 1]) + data[7:],
            "other function": data[:7] + bytes([data[7] ^ 7]) + data[8:],
            "not modbus": b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "torn": data[: len(data) // 2],
            "short": data[:4] + (length - 20).to_bytes(2, "big") + data[6:8] + bytes([data[8] - 20]) + data[9:-20],
            "short count": data[:8] + bytes([4]) + data[9:],
            "twice": data + data,
            "oversized": data[:4] + b"\xff\xff" + data[6:] + bytes(70_000),
        }[how]


async def _serve(port: int) -> None:
    from functools import partial

    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    setup = json.loads(await reader.readline())
    device = _Device(setup["queue_at"], setup["write_at"])

    async def listen(port: int) -> Any:
        units = [
            SimDevice(
                id=int(unit),
                simdata=[SimData(at, values=values, datatype=DataType.REGISTERS) for at, values in image],
                action=partial(device.act, int(unit)),
            )
            for unit, image in setup["units"].items()
        ]
        server = ModbusTcpServer(units, address=("127.0.0.1", port), trace_packet=device.packet)
        await server.serve_forever(background=True)
        return server

    server = await listen(port)
    more = [await listen(each) for each in setup["more_ports"]]
    assert len(more) == len(setup["more_ports"])
    device.say(answer="ready")
    async for line in reader:
        order = json.loads(line)
        answer: Any = "done"
        if "queue" in order:
            device.queue.extend(order["queue"])
        if "flood" in order:
            device.flood = (0, order["flood"])
        if "pause" in order:
            device.paused = order["pause"]
            answer = list(device.queue)
        if "behave" in order:
            device.behaviour = order["behave"]
        if "mangle" in order:
            device.mangle = order["mangle"]
        if "delay" in order:
            device.delay_s = {int(unit): seconds for unit, seconds in order["delay"].items()}
        if "set" in order:
            device.own = True
            unit, address, values = order["set"]
            await server.async_setValues(unit, 16, address, values)
            device.own = False
        if "get" in order:
            device.own = True
            unit, address, count = order["get"]
            answer = await server.async_getValues(unit, 3, address, count)
            device.own = False
        device.say(answer=answer)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
