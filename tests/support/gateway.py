"""A whole gateway's reading path in one process, made to be killed: MQTT adapter → ingest → SQLite journal.

Everything is the real thing; the wrappers here only write down, in memory shared with the test, which point the
gateway is at, so that the test knows where a SIGKILL hit, and kill it there when told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import mmap
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flexrelay.ingest import Ingest, Limits, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay_adapters.mqtt import MqttAdapter, MqttConfig
from flexrelay_adapters.mqtt._client import Connection, Inbound, MqttiumConnection, Session
from flexrelay_adapters.mqtt.config import BrokerConfig
from flexrelay_sdk import Codec, Frame, Receipt

POINTS = (
    "starting",
    "journal open",
    "checks primed",
    "connecting",
    "subscribing",
    "waiting for readings",
    "readings gathered",
    "transaction begun",
    "rows being written",
    "commit running",
    "commit returned",
    "receipts returned",
    "first acknowledgement",
    "between acknowledgements",
    "all acknowledged",
)


@dataclass(frozen=True)
class Orders:
    """What a gateway process is to do. `kill_at` a point after `skip` passes, `delay_us` later; "" runs on."""

    folder: Path
    port: int
    network: str
    devices: tuple[tuple[str, str], ...]
    """(DID, Multikey)."""
    market_ms: int
    protocol: str = "5"
    kill_at: str = ""
    skip: int = 0
    delay_us: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    """Changes to ingest's limits."""

    def main(self) -> None:
        """What the process does."""
        main(self)


class Killing(Protocol):
    """Orders to be killed at a point."""

    @property
    def kill_at(self) -> str: ...
    @property
    def skip(self) -> int: ...
    @property
    def delay_us(self) -> int: ...


class Marks:
    """The point the process is at, in a file that outlives it."""

    def __init__(self, path: Path, orders: Killing | None = None, points: Sequence[str] = POINTS) -> None:
        self._points = tuple(points)
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self._orders = orders
        self._skip = orders.skip if orders is not None else 0

    @property
    def point(self) -> str:
        return self._points[self._shared[0]]

    @property
    def passes(self) -> int:
        """How often readings were gathered."""
        return int.from_bytes(self._shared[1:5], "little")

    def reset(self) -> None:
        self._shared[:8] = bytes(8)

    def at(self, point: str) -> None:
        self._shared[0] = self._points.index(point)
        if point == "readings gathered":
            self._shared[1:5] = (self.passes + 1).to_bytes(4, "little")
        orders = self._orders
        if orders is not None and point == orders.kill_at:
            if self._skip:
                self._skip -= 1
            elif orders.delay_us:
                threading.Thread(target=self._kill, args=(orders.delay_us,), daemon=True).start()
                self._orders = None
            else:
                self._kill(0)

    @staticmethod
    def _kill(after_us: int) -> None:
        if after_us:  # a sleep of zero would let other threads pass other points
            time.sleep(after_us / 1e6)
        os.kill(os.getpid(), signal.SIGKILL)


def marked(inner: Callable[..., Any], marks: Marks, before: str, after: str) -> Callable[..., Any]:
    """`inner`, with a point before and one after it at which a kill may fall."""
    if inspect.iscoroutinefunction(inner):

        @functools.wraps(inner)
        async def marked_async(*args: Any, **named: Any) -> Any:
            marks.at(before)
            result = await inner(*args, **named)
            marks.at(after)
            return result

        return marked_async

    @functools.wraps(inner)
    def wrapped(*args: Any, **named: Any) -> Any:
        marks.at(before)
        result = inner(*args, **named)
        marks.at(after)
        return result

    return wrapped


class _MarkedConnection:
    def __init__(self, inner: Connection, marks: Marks) -> None:
        self._inner = inner
        self._marks = marks

    async def subscribe(self, filters: Sequence[str]) -> None:
        self._marks.at("subscribing")
        await self._inner.subscribe(filters)

    async def gather(self, most: int) -> Sequence[Inbound]:
        self._marks.at("waiting for readings")
        gathered = await self._inner.gather(most)
        self._marks.at("readings gathered")
        return gathered

    async def acknowledge(self, messages: Iterable[Inbound]) -> None:
        await self._inner.acknowledge(self._marked(messages))
        self._marks.at("all acknowledged")

    def _marked(self, messages: Iterable[Inbound]) -> Iterator[Inbound]:
        point = "first acknowledgement"
        for message in messages:
            self._marks.at(point)
            yield message
            point = "between acknowledgements"

    async def publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        await self._inner.publish(topic, payload, expiry_s)

    async def close(self) -> None:
        await self._inner.close()


class _MarkedSink:
    def __init__(self, inner: Ingest, marks: Marks) -> None:
        self._inner = inner
        self._marks = marks

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        receipts = await self._inner.put(frames, codec)
        assert len(receipts) == len(frames)
        self._marks.at("receipts returned")
        return receipts


class _MarkedJournal(SqliteJournal):
    marks: Marks

    def _commit(self, group: Any) -> list[int]:
        firsts = super()._commit(group)
        self.marks.at("commit returned")
        return firsts

    def trace(self, statement: str) -> None:
        word = statement.split(maxsplit=1)[0].upper()
        point = {"BEGIN": "transaction begun", "INSERT": "rows being written", "COMMIT": "commit running"}.get(word)
        if point is not None:
            self.marks.at(point)


def registry(orders: Orders) -> Registry:
    known = Registry(orders.network, "dso")
    for did, key in orders.devices:
        known.apply("identity.registered", {"did": did, "kind": "device", "key": key, "version": 1})
    return known


def mqtt_config(port: int, protocol: str = "5") -> MqttConfig:
    """The gateway's broker session."""
    return MqttConfig.model_validate(
        {
            "port": port,
            "protocol": protocol,
            "client_id": "gw",
            "username": "gateway-dso",
            "password": "secret-g",
            "readings": ("flexrelay/v1/dso/{device}/readings",),
            "batch": 200,  # more commits, hence more places to be killed at
            "backoff_min_s": 0.05,
            "backoff_max_s": 0.2,
        }
    )


async def serve(orders: Orders, marks: Marks) -> None:
    """Run until killed."""
    journal = _MarkedJournal(orders.folder / "journal.db")
    journal.marks = marks
    journal._writer.set_trace_callback(journal.trace)
    marks.at("journal open")
    checks = RegisterChecks(NoHistory(), journal.traces)
    checks.prime()
    marks.at("checks primed")
    ingest = Ingest(registry(orders), journal, checks, lambda: orders.market_ms, Limits(**orders.limits))

    async def connect(config: BrokerConfig, session: Session) -> Connection:
        marks.at("connecting")
        return _MarkedConnection(await MqttiumConnection.open(config, session), marks)

    config = mqtt_config(orders.port, orders.protocol)
    await MqttAdapter(config, NativeCodec(), connect=connect).run(_MarkedSink(ingest, marks))


def main(orders: Orders) -> None:
    """What a gateway process runs."""
    logging.basicConfig(filename=orders.folder / "gateway.log", level=logging.WARNING, force=True)
    marks = Marks(orders.folder / "marks", orders)
    marks.at("starting")
    try:
        asyncio.run(serve(orders, marks))
    except BaseException:
        logging.exception("the gateway ended by itself")
        raise


class GatewayProcess:
    """A gateway process under the nursery; `ended` is its signal (negative) or exit status."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.ensure_future(nursery.read("ended"))

    def kill(self) -> None:
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """A process that has everything imported and forks a gateway at a time: a start takes milliseconds."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Nursery]:
        path = str(Path(__file__).parent.parent)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "support.gateway",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        nursery = cls(process)
        try:
            yield nursery
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def start(self, orders: Any) -> GatewayProcess:
        assert self._process.stdin is not None
        self._process.stdin.write(pickle.dumps(orders).hex().encode() + b"\n")
        return GatewayProcess(self, await self.read("pid"))

    async def read(self, word: str) -> int:
        assert self._process.stdout is not None
        said, value = (await self._process.stdout.readline()).split()
        assert said.decode() == word
        return int(value)


def _nurse() -> None:
    for line in sys.stdin:
        orders = pickle.loads(bytes.fromhex(line))
        pid = os.fork()
        if not pid:
            os.close(0)
            try:
                orders.main()
            finally:
                os._exit(1)
        print("pid", pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    from support.gateway import _nurse as nurse  # so that what is pickled has this module's name

    nurse()
