"""Commands through crashes and bad transports: a device acts once, an order loses none, each ends once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexrelay.dispatch import DISPATCH, Delivery, Dispatcher, DispatchOrder, OrderedIsp, Planned
from flexrelay.journal.port import Entry
from flexrelay.store import Store
from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.testkit import until

ORDER = DispatchOrder("o-1", "agg", (OrderedIsp(1, 0, 900, 6), OrderedIsp(2, 900, 1_800, 3)))
FAULTS = ("ok", "lost_before", "lost_after", "silent", "refuse", "hang")


def planned(n: int, *, send_at: int = 0, expires_at: int = 10_000) -> Planned:
    return Planned(f"did:{n}", f"c{n}", "set_power", {"power_w": n}, send_at, expires_at)


@dataclass
class Devices:
    """Transport and devices. A device remembers the ids that it acted on, as the SDK asks, and survives the gateway."""

    now: int = 1_000
    script: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    answers: dict[str, CommandState] = field(default_factory=dict)
    delivered: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        fault = self.script.pop(0) if self.script else "ok"
        await asyncio.sleep(0)
        if fault == "lost_before":
            raise ConnectionError("no broker")
        await on_update(CommandUpdate(command.command_id, CommandState.SENT, self.now))
        if fault == "hang":
            await asyncio.sleep(30)
        if self.now >= command.expires_at:
            self.late.append(command.command_id)
        self.delivered[command.command_id] += 1
        if command.command_id not in self.answers:
            self.acts[command.command_id] += 1
            self.answers[command.command_id] = CommandState.FAILED if fault == "refuse" else CommandState.ACKED
        if fault == "lost_after":
            raise ConnectionError("broker gone")
        if fault == "silent":
            return
        answer = self.answers[command.command_id]
        await on_update(CommandUpdate(command.command_id, answer, self.now, "", {"power_w": 1}))


def dispatcher(store: Store, devices: Devices) -> Dispatcher:
    return Dispatcher(store, "t", devices, clock=lambda: devices.now, retry_s=0.001)


async def test_a_command_is_on_disk_before_it_is_sent_and_ends_once(tmp_path: Path) -> None:
    devices = Devices()
    async with Store(tmp_path / "s.db", [DISPATCH]) as store, dispatcher(store, devices) as sending:
        ids = await sending.accept(ORDER, [planned(1), planned(2)])
        records = await asyncio.wait_for(sending.finished("o-1"), 60)
        assert {record.command.command_id for record in records} == set(ids)
        assert all(record.command.correlation_id == "o-1" and record.reported == {"power_w": 1} for record in records)
        steps = [step.state for step in await sending.steps(ids[0])]
        assert steps == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
        assert await sending.commanded_hash("o-1") != await sending.activated_hash("o-1")


async def test_the_first_plan_of_an_order_stands(tmp_path: Path) -> None:
    devices = Devices()
    async with Store(tmp_path / "s.db", [DISPATCH]) as store, dispatcher(store, devices) as sending:
        first = await sending.accept(ORDER, [planned(1)])
        assert await sending.accept(ORDER, [planned(2)]) == first
        await asyncio.wait_for(sending.finished("o-1"), 60)
        assert list(devices.acts) == first


async def test_nothing_is_sent_before_its_time_nor_after_its_expiry(tmp_path: Path) -> None:
    devices = Devices(now=1_000)
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        async with dispatcher(store, devices) as sending:
            early, over = await sending.accept(ORDER, [planned(1, send_at=2_000), planned(2, expires_at=1_000)])
            async with asyncio.timeout(60):
                states: dict[str, CommandState] = {}
                while states.get(over) is not CommandState.EXPIRED:
                    await asyncio.sleep(0.01)
                    states = {r.command.command_id: r.state for r in await sending.commands("o-1")}
            assert states == {early: CommandState.QUEUED, over: CommandState.EXPIRED}
            devices.now = 2_000
            await asyncio.wait_for(sending.finished("o-1"), 60)
        assert devices.acts == {early: 1}


async def test_devices_that_never_answer_keep_no_other_waiting(tmp_path: Path) -> None:
    devices = Devices(script=["hang"] * 300)
    async with Store(tmp_path / "s.db", [DISPATCH]) as store, dispatcher(store, devices) as sending:
        await sending.accept(ORDER, [planned(n) for n in range(300)])
        await until(lambda: not devices.script, 60, "the commands of the silent devices")
        later = DispatchOrder("o-2", "agg", ORDER.isps)
        (id_,) = await sending.accept(later, [planned(300)])
        (record,) = await asyncio.wait_for(sending.finished("o-2"), 60)
        assert record.state is CommandState.ACKED and devices.acts[id_] == 1


async def test_the_nearest_windows_get_the_places(tmp_path: Path) -> None:
    ends: list[int] = []

    class OneAfterTheOther(Devices):
        async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
            ends.append(command.expires_at)
            await super().execute(command, on_update)

    devices = OneAfterTheOther()
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        sending = Dispatcher(store, "t", devices, clock=lambda: devices.now, in_flight=1)
        wanted = [planned(n, expires_at=20_000 - 1_000 * n) for n in range(8)]
        async with sending:
            await sending.accept(ORDER, wanted)
            await asyncio.wait_for(sending.finished("o-1"), 60)
    assert ends == sorted(each.expires_at for each in wanted)


async def test_windows_of_tomorrow_leave_places_to_those_of_now(tmp_path: Path) -> None:
    begun: list[str] = []

    class Waiting(Devices):
        async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
            begun.append(command.did)
            while command.begins_at > self.now:  # noqa: ASYNC110 (the test moves the clock)
                await asyncio.sleep(0.001)
            await super().execute(command, on_update)

    def windowed(n: int, begins_at: int) -> Planned:
        window = {"power_w": n, "from_ms": 0, "until_ms": 900_000}
        return Planned(f"did:{n}", f"c{n}", "set_power", window, 0, begins_at + 900_000)

    devices = Waiting()
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        sending = Dispatcher(store, "t", devices, clock=lambda: devices.now, in_flight=4, retry_s=0.001)
        async with sending:
            await sending.accept(ORDER, [windowed(n, 86_400_000) for n in range(8)])
            await until(lambda: len(begun) == 3, 60, "those that found a place")
            await sending.accept(DispatchOrder("o-2", "agg", ORDER.isps), [windowed(n, 60_000) for n in range(8, 10)])
            devices.now = 61_000
            found = await asyncio.wait_for(sending.finished("o-2"), 60)
            assert [record.state for record in found] == [CommandState.ACKED] * 2
            assert sorted(begun[3:]) == ["did:8", "did:9"], "one place is theirs"
            devices.now = 86_400_000 + 1_000
            found = await asyncio.wait_for(sending.finished("o-1"), 60)
            assert [record.state for record in found] == [CommandState.ACKED] * 8
    assert sorted(begun) == [f"did:{n}" for n in range(10)]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    script=st.lists(st.sampled_from(FAULTS), max_size=10),
    waits=st.lists(st.sampled_from([0.0, 0.002, 0.006]), max_size=4),
    expire=st.booleans(),
)
def test_restarts_neither_repeat_nor_lose(
    script: list[str], waits: list[float], expire: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("d") / "s.db"

    async def scenario() -> None:
        devices = Devices(script=list(script))
        async with Store(path, [DISPATCH]) as store:
            ids = await dispatcher(store, devices).accept(ORDER, [planned(n) for n in range(4)])
            for wait in waits:
                async with dispatcher(store, devices):
                    await asyncio.sleep(wait)
            if expire:
                devices.now = 20_000
            devices.script = [fault for fault in devices.script if fault != "hang"]
            async with dispatcher(store, devices) as sending:
                records = await asyncio.wait_for(sending.finished("o-1"), 60)
                assert [r.command.command_id for r in records] == sorted(ids)
                for record in records:
                    name = record.command.command_id
                    ends = [step for step in await sending.steps(name) if step.state.terminal]
                    assert len(ends) == 1 and ends[0].state is record.state
                    assert devices.acts[name] <= 1
                    if record.state is CommandState.EXPIRED:
                        assert expire
                    else:
                        assert devices.answers[name] is record.state
            assert devices.late == []

    asyncio.run(scenario())


async def test_readings_in_the_delivery_period_are_the_orders_evidence(tmp_path: Path) -> None:
    def entry(position: int, did: str, observed_at: int) -> Entry:
        measurement = Measurement(did, observed_at, {"import_j": 1})
        return Entry(position, 0, did, "mqtt", "c", "", 0, True, b"x", (measurement,))

    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        await dispatcher(store, Devices()).accept(ORDER, [planned(1)], watch=["did:meter"])
        delivery = Delivery(store, "t")
        entries = [
            entry(1, "did:meter", -1),
            entry(2, "did:meter", 0),
            entry(3, "did:1", 900),
            entry(4, "did:other", 900),
            entry(5, "did:meter", 1_800),
            entry(6, "did:meter", 1_801),
        ]
        await delivery.consume(entries[:4])
        await delivery.consume(entries[2:])
        assert [(r.position, r.did) for r in await delivery.readings("o-1")] == [
            (2, "did:meter"),
            (3, "did:1"),
            (5, "did:meter"),
        ]
        assert await delivery.orders_of(3) == ["o-1"] and await delivery.orders_of(6) == []
        assert await delivery.position() == 6
        await delivery.watch(DispatchOrder("o-2", "agg", ORDER.isps[:1]), ["did:other"])
        await delivery.consume(entries)
        assert [r.position for r in await delivery.readings("o-2")] == [4]
