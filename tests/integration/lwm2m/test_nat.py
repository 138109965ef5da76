"""Devices whose address changes in mid-session, as behind a NAT: served again after a new handshake, nothing lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from support.leshan import leshan, needs_leshan
from support.nat import Nat

from flexrelay_adapters.lwm2m import Lwm2mAdapter
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer, Timing
from flexrelay_adapters.lwm2m.device import DeviceClient, Security, Tree
from flexrelay_adapters.lwm2m.dtls.transport import OF_ONE
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.testkit import RecordingSink, until

from .conftest import KEY, Serve

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 90.0
POWER = (3305, 0, 5800)


class Device:
    """Sends each value until it is answered, over a new session when there is no answer over the old one."""

    def __init__(self, nat: Nat, *, queue: bool = False) -> None:
        self._nat = nat
        self._queue = queue
        self.client: DeviceClient | None = None
        self.handshakes = 0
        self.tree = Tree(
            {(1, 0, 0): 1, (3310, 0, 5823): "", (3310, 0, 5824): 0, (3310, 0, 5825): 0, (3310, 0, 5827): 0}
        )

    async def connect(self) -> DeviceClient:
        if self.client is not None:
            self.client.close(say=False)
        self.client = DeviceClient(
            ("127.0.0.1", self._nat.port),
            "meter",
            self.tree,
            security=Security(identity="meter-1", key=bytes.fromhex(KEY)),
            timing=Timing(ack_timeout_s=0.5, max_retransmit=1),
            queue=self._queue,
        )
        await self.client.open()
        self.handshakes += 1
        return self.client

    async def send(self, value: int) -> None:
        record = Record(POWER, float(value), 1_700_000_000.0 + value)
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            client = self.client or await self.connect()
            try:
                assert await client.send([record]) == codes.CHANGED
                return
            except NoAnswer:
                await self.connect()
        raise AssertionError(f"{value} was not taken")

    def close(self) -> None:
        if self.client is not None:
            self.client.close(say=False)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"meter-1:{KEY}\n")
    return path


COAPS = {"port": 0, "psk_file": "keys"}


async def test_nothing_is_lost_and_old_sessions_go(serve: Serve, sink: RecordingSink, keys: Path) -> None:
    async with serve(coap=None, coaps=COAPS, observe=()) as adapter, Nat.before("127.0.0.1", adapter.coaps_port) as nat:
        device = Device(nat)
        await (await device.connect()).register()
        known = one(adapter)
        for value in range(1, 31):
            if value % 5 == 0:
                await nat.rebind()
            await device.send(value)
        assert set(sink.values()) == set(range(1, 31)) and sink.dead == []
        assert device.handshakes > len(nat.bindings) - 1 >= 6
        assert one(adapter) == known  # its registration goes on
        assert adapter.dtls is not None and len(adapter.dtls) == OF_ONE
        assert adapter.counters()["strangers"] >= 6  # what came of sessions that nobody knows there
        device.close()


@pytest.mark.parametrize("queue", [False, True])
async def test_a_command_waits_for_the_new_session(serve: Serve, keys: Path, queue: bool) -> None:
    section = {"coaps": COAPS, "observe": (), "commands": {"rated_w": 10_000}, "ack_timeout_s": 0.1}
    async with serve(coap=None, **section) as adapter, Nat.before("127.0.0.1", adapter.coaps_port) as nat:
        device = Device(nat, queue=queue)
        await (await device.connect()).register()
        await nat.rebind()  # the gateway does not know: what it sends is lost
        states: list[CommandState] = []

        async def on_update(update: CommandUpdate) -> None:
            states.append(update.state)

        expires_at = int(time.time() * 1000) + int(PATIENCE_S * 1000)
        command = Command("c-1", "did:x", "meter-1", "set_power", {"power_w": 4200}, expires_at, "order")
        executing = asyncio.create_task(adapter.execute(command, on_update))
        await until(lambda: nat.dropped > 0, PATIENCE_S, "what is sent to the former address")
        assert device.tree.values[3310, 0, 5827] == 0
        await device.send(1)
        async with asyncio.timeout(PATIENCE_S):
            await executing
        assert states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
        assert device.tree.values[3310, 0, 5827] == 42
        device.close()


@pytest.mark.soak  # how long Californium looks for its server is Californium's
@needs_leshan
async def test_leshan_with_a_connection_identifier(serve: Serve, sink: RecordingSink, keys: Path) -> None:
    """It offers one (RFC 9146); it is not taken, and Californium makes a new session when nobody answers."""
    async with (
        serve(coap=None, coaps=COAPS, observe=()) as adapter,
        Nat.before("127.0.0.1", adapter.coaps_port) as nat,
        leshan(
            "Device", url=f"coaps://127.0.0.1:{nat.port}", name="m", identity="meter-1", key=KEY, cid=6,
            retransmissions=1, timeout=5000,
        ) as device,
    ):  # fmt: skip
        await device.says("registered", PATIENCE_S)
        assert adapter.counters()["connection_ids"] == 1
        known = one(adapter)
        for value in (1, 2, 3):
            await device.do(f"set /3305/0/5800 {value}", "set")
            await device.do("collect /3305/0/5800", "collected")
            if value == 2:
                await nat.rebind()
        await device.do("sendcollected 112", "sentcollected")  # into the void: what fails it keeps
        await device.do("update", "updated", PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while not {1, 2, 3} <= set(sink.values()):
                await device.do("sendcollected 112", "")  # "sentcollected", or an error when nothing is kept now
                await asyncio.sleep(0.5)
        counters = adapter.counters()
        assert counters["handshakes"] == counters["connection_ids"] >= 2
        assert one(adapter) == known


def one(adapter: Lwm2mAdapter) -> str:
    (registration,) = adapter.registrations
    return registration.id
