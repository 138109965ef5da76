"""From Modbus registers to the journal: blocks read, decoded, identified, validated, journalled.

Servers in another process answer every request at once, so the gateway is the bottleneck: counted is the CPU time of
its one process. Two devices of four blocks each behind every endpoint, polled as fast as they answer. The bare client
is pymodbus' own, which reads the same blocks, one after the other on each connection, and keeps nothing.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from pymodbus.client import AsyncModbusTcpClient

from flexrelay.bench import Result
from flexrelay.ingest import Enrolment, Ingest, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.modbus import ModbusAdapter, ModbusConfig
from flexrelay_schemas.did import Create, key_hash
from flexrelay_sdk.clock import wall_ms

NETWORK: Final = "bench"
ENDPOINTS: Final = 20
UNITS: Final = (1, 2)
BLOCKS: Final = (("power_w", 100, "W"), ("import_j", 1100, "Wh"), ("voltage_mv", 2100, "V"), ("current_ma", 3100, "A"))
WIDTH: Final = 60
"""Registers of a block."""
READS: Final = 16_000
ROUNDS: Final = 3
UNIT: Final = "blocks/CPU-s"
_KEY: Final = "z" + "1" * 45
"""Nobody signs here."""


def run() -> list[Result]:
    """bare_modbus, modbus_blocks; the best of a few rounds."""
    bare = max(_measure("bare") for _ in range(ROUNDS))
    ours = max(_measure("gateway") for _ in range(ROUNDS))
    return [
        {"name": "bare_modbus", "value": bare, "unit": UNIT, "ratio": 0.0, "against": ""},
        {"name": "modbus_blocks", "value": ours, "unit": UNIT, "ratio": ours / bare, "against": "bare pymodbus"},
    ]


def _measure(what: str) -> float:
    """Blocks per CPU-second of the reading process."""
    command = [sys.executable, "-m", "flexrelay.bench.modbus"]
    serving = subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        ports = serving.stdout.readline().strip()
        with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
            done = subprocess.run([*command, what, ports, folder], check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{what} failed: {done.stderr[-2000:]}")
        return float(done.stdout.split()[-1])
    finally:
        serving.terminate()
        serving.wait()


class _Answering(asyncio.Protocol):
    """Answers reads of holding registers with zeros, but for a counter of one, whole requests only."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        size = 2 * int.from_bytes(data[10:12], "big")
        head = data[:4] + (size + 3).to_bytes(2, "big") + data[6:8] + bytes([size])
        self._transport.write(head + b"\0\0\0\1" + bytes(size - 4))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Answering, "127.0.0.1", 0) for _ in range(ENDPOINTS)]
    print(",".join(str(server.sockets[0].getsockname()[1]) for server in servers), flush=True)
    await asyncio.Event().wait()


async def _bare(ports: list[int]) -> float:
    async def poll(port: int) -> int:
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        count = 0
        while count < READS // ENDPOINTS:
            for unit in UNITS:
                for _, address, _ in BLOCKS:
                    answer = await client.read_holding_registers(address, count=WIDTH, device_id=unit)
                    count += len(answer.registers) == WIDTH
        client.close()
        return count

    begin = time.process_time()
    count = sum(await asyncio.gather(*[poll(port) for port in ports]))
    return count / (time.process_time() - begin)


def _config(ports: list[int]) -> ModbusConfig:
    registers: dict[str, Any] = {}
    for register, address, unit in BLOCKS:
        registers[register] = {"address": address, "type": "u32", "unit": unit}
    last = {"address": 100 + WIDTH - 2, "type": "u32", "unit": "Wh"}
    devices = {
        f"{port}-{unit}": {"endpoint": f"127.0.0.1:{port}", "unit": unit, "registers": {**registers, "export_j": last}}
        for port in ports
        for unit in UNITS
    }
    return ModbusConfig.from_section("bench", {"interval_s": 0.001, "max_gap": 124, "devices": devices})


async def _gateway(ports: list[int], folder: Path) -> float:
    """The whole path."""
    registry = Registry(NETWORK, "bench")
    config = _config(ports)
    for number, device in enumerate(config.devices.values()):
        create = Create(network=NETWORK, kind="device", key=_KEY, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
        did = create.did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": _KEY, "version": 1})
        registry.enrol(Enrolment(did, (("modbus", device.credential),), unsigned=True))
    async with SqliteJournal(folder / "journal.db") as journal:
        ingest = Ingest(registry, journal, RegisterChecks(NoHistory(), journal.traces), wall_ms)
        adapter = ModbusAdapter(config)
        begin = time.process_time()
        running = asyncio.create_task(adapter.run(ingest))
        while adapter.stats.blocks < READS:
            await asyncio.wait({running}, timeout=0.01)
            if running.done():
                running.result()
        blocks, seconds = adapter.stats.blocks, time.process_time() - begin
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ingest.close()
        if ingest.outcomes["stored"] < adapter.stats.frames or not adapter.stats.frames:
            raise AssertionError(f"not everything was stored: {ingest.outcomes}, {adapter.stats}")
        await journal.verify()
    return blocks / seconds


def _main(role: str, *rest: str) -> None:
    if role == "serve":
        asyncio.run(_serve())
        return
    ports = [int(port) for port in rest[0].split(",")]
    print(asyncio.run(_bare(ports) if role == "bare" else _gateway(ports, Path(rest[1]))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
