"""From an OPC UA server's data changes to the journal: decoded, identified, validated, journalled, acknowledged.

The notifications are made beforehand, as a server sends them, and a server in another process answers each publish
request with the next one, so the gateway is the bottleneck: counted is the CPU time of its one process from the made
subscription to the last notification on disk. The bare client is the library's own subscription with a handler that
counts: it decodes the same notifications, keeps nothing, and acknowledges.

A notification tells of all devices: five variables each, with one source time, as a meter's are; `opcua_changes_many`
tells of ten samples of each variable, as with a publishing interval of ten sampling intervals.
"""

import asyncio
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from asyncua import ua as _ua
from asyncua.client.client import Client
from asyncua.server import uaprocessor
from asyncua.server.server import Server as _Server

from flexrelay.bench import Result, in_process
from flexrelay.ingest import Enrolment, Ingest, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_adapters.opcua.wire import ticks
from flexrelay_schemas.did import Create, key_hash

ua: Any = _ua
Server: Any = _Server
UaProcessor: Any = uaprocessor.UaProcessor
"""As they are at run time: the library does not declare all of it for type checkers."""

NETWORK: Final = "bench"
START: Final = 1_700_000_000_000
DEVICES: Final = 200
REGISTERS: Final = {"import_j": "Wh", "export_j": "Wh", "power_w": "W", "voltage_mv": "V", "current_ma": "A"}
CHANGES: Final = 200_000
ROUNDS: Final = 2
UNIT: Final = "changes/CPU-s"
_NAMESPACE: Final = 2
_KEY: Final = "z" + "1" * 45
"""Nobody signs here."""


def run() -> list[Result]:
    """bare_opcua, opcua_changes, opcua_changes_many; the best of a few rounds."""
    bare = max(_measure("bare", 1) for _ in range(ROUNDS))
    one = max(_measure("gateway", 1) for _ in range(ROUNDS))
    many = max(_measure("gateway", 10) for _ in range(ROUNDS))
    against = "the bare library, decoding only"
    return [
        {"name": "bare_opcua", "value": bare, "unit": UNIT, "ratio": 0.0, "against": ""},
        {"name": "opcua_changes", "value": one, "unit": UNIT, "ratio": one / bare, "against": against},
        {"name": "opcua_changes_many", "value": many, "unit": UNIT, "ratio": many / bare, "against": against},
    ]


def _measure(what: str, samples: int) -> float:
    """Changes per CPU-second of the receiving process."""
    serving = subprocess.Popen(
        [sys.executable, "-m", "flexrelay.bench.opcua", "serve", str(samples)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        port = serving.stdout.readline().strip()
        with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
            printed = in_process("flexrelay.bench.opcua", what, port, str(samples), folder)
        return CHANGES / float(printed.split()[-1])
    finally:
        serving.terminate()
        serving.wait()


def _node(device: int, register: str) -> str:
    return f"ns={_NAMESPACE};s=d{device:03d}.{register}"


def _notifications(samples: int) -> int:
    return CHANGES // (DEVICES * len(REGISTERS) * samples)


class _Canned:
    """Publish responses made of the monitored items that the client has asked for, in the order of its asking."""

    def __init__(self, subscription: int, handles: list[int], samples: int) -> None:
        item = "IHdqq"  # client handle, mask and type, value, source and server time
        count = len(handles) * samples
        self._items = struct.Struct("<" + item * count)
        self._head = struct.Struct("<IqIIBi3sIiBIqiIBii")
        self._subscription = subscription
        self._handles = handles
        self._samples = samples
        self._left = _notifications(samples)

    def next(self, sequence: int) -> bytes | None:
        """The body of a publish response, None when all were sent."""
        if not self._left:
            return None
        self._left -= 1
        size = self._items.size + 8
        count = len(self._handles) * self._samples
        head = self._head.pack(
            0x033D_0001, 0, 0, 0, 0, 0, b"\0\0\0", self._subscription, 0, 0,
            sequence, ticks(START), 1, 0x032B_0001, 1, size, count,
        )  # fmt: skip
        fields: list[float] = []
        for handle in self._handles:
            for sample in range(self._samples):
                number = sequence * self._samples + sample
                stamp = ticks(START + number * 1000)
                fields += (handle, 0x0B0D, 1000.5 + number, stamp, stamp)
        return head + self._items.pack(*fields) + struct.pack("<iii", 0, 0, 0)  # diagnostics, results, diagnostics


async def _serve(samples: int) -> None:
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/bench")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    await server.register_namespace("urn:bench")
    for device in range(DEVICES):
        parent = await server.nodes.objects.add_object(_NAMESPACE, f"d{device:03d}")
        for register in REGISTERS:
            node = ua.NodeId.from_string(_node(device, register))
            await parent.add_variable(node, register, ua.DataValue(ua.Variant(0.0), SourceTimestamp=None))
    canned: dict[int, _Canned] = {}
    plain = UaProcessor._process_message

    async def process(self: Any, kind: Any, header: Any, sequence: Any, body: Any) -> Any:
        if kind.Identifier == ua.ObjectIds.PublishRequest_Encoding_DefaultBinary and self.session is not None:
            for number, subscription in self.session.subscription_service.subscriptions.items():
                items = subscription.monitored_item_srv._monitored_items.values()
                if number not in canned and len(items) == DEVICES * len(REGISTERS):
                    handles = sorted(item.client_handle for item in items)
                    canned[number] = _Canned(number, handles, samples)
                    self.told = 0
                if number in canned:
                    response = canned[number].next(self.told + 1)
                    if response is not None:
                        self.told += 1
                        message = self._connection.message_to_binary(response, request_id=sequence.RequestId)
                        self._transport.write(message)
                        return True
        return await plain(self, kind, header, sequence, body)

    UaProcessor._process_message = process
    async with server:
        print(server.bserver._server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()


class _Count:
    def __init__(self) -> None:
        self._left = CHANGES
        self.all = asyncio.Event()

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self._left -= 1
        if not self._left:
            self.all.set()


async def _bare(port: int) -> float:
    """CPU seconds of the library's own client until its handler has seen every change."""
    async with Client(f"opc.tcp://127.0.0.1:{port}/bench", timeout=60, watchdog_intervall=60) as client:
        count = _Count()
        subscription = await client.create_subscription(1000, count)
        nodes = [client.get_node(_node(device, register)) for device in range(DEVICES) for register in REGISTERS]
        await subscription.subscribe_data_change(nodes, queuesize=100)
        begin = time.process_time()
        await count.all.wait()
        return time.process_time() - begin


async def _gateway(port: int, samples: int, folder: Path) -> float:
    """CPU seconds of the whole path."""
    registry = Registry(NETWORK, "bench")
    config = OpcuaConfig.from_section(
        "bench",
        {
            "url": f"opc.tcp://127.0.0.1:{port}/bench",
            "security": "None",
            "publishing_ms": 1000.0,
            "state": str(folder),
            "timeout_s": 60.0,
            "history": False,
            "devices": {
                f"d{device:03d}": {
                    "registers": {
                        register: {"node": _node(device, register), "unit": unit}
                        for register, unit in REGISTERS.items()
                    }
                }
                for device in range(DEVICES)
            },
        },
    )
    for number, name in enumerate(config.devices):
        create = Create(network=NETWORK, kind="device", key=_KEY, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
        did = create.did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": _KEY, "version": 1})
        registry.enrol(Enrolment(did, (("opcua", config.credential(name)),), unsigned=True))
    async with SqliteJournal(folder / "journal.db") as journal:
        ingest = Ingest(registry, journal, RegisterChecks(NoHistory(), journal.traces), lambda: START + CHANGES * 1000)
        adapter = OpcuaAdapter(config)
        running = asyncio.create_task(adapter.run(ingest))
        await asyncio.wait({running, asyncio.create_task(adapter.wait_connected())}, return_when="FIRST_COMPLETED")
        begin = time.process_time()
        while adapter.stats.acknowledged < _notifications(samples):
            await asyncio.wait({running}, timeout=0.01)
            if running.done():
                running.result()
        seconds = time.process_time() - begin
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ingest.close()
        expected = DEVICES * _notifications(samples)
        if ingest.outcomes["stored"] < expected or adapter.stats.changes < CHANGES:
            raise AssertionError(f"not everything was stored: {ingest.outcomes}, {adapter.stats}")
        await journal.verify()
    return seconds


def _main(role: str, *rest: str) -> None:
    if role == "serve":
        asyncio.run(_serve(int(rest[0])))
    elif role == "bare":
        print(asyncio.run(_bare(int(rest[0]))))
    else:
        print(asyncio.run(_gateway(int(rest[0]), int(rest[1]), Path(rest[2]))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
