"""Ends of commands: overlapping windows, devices that are gone, restarts. What was sent last holds the device."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from flexrelay.dispatch import DISPATCH, Dispatcher, DispatchOrder, OrderedIsp, Planned, ending
from flexrelay.dispatch import dispatcher as dispatcher_module
from flexrelay.store import Store
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import until

pytestmark = pytest.mark.timeout(300)
IDLE = 0


@dataclass
class Devices:
    """Devices without a timer: one register each, by credential."""

    now: int = 0
    register: dict[str, int] = field(default_factory=dict)
    ends: list[tuple[str, str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    breaks: set[str] = field(default_factory=set)
    """Orders that fail when the register is written already."""
    silent: bool = False
    held: set[str] = field(default_factory=set)
    """Orders that do not get to the device."""
    told: list[str] = field(default_factory=list)
    sent: int = 0

    @property
    def can_command(self) -> bool:
        return True

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        if command.correlation_id in self.held:
            await asyncio.Event().wait()
        self.told.append(command.correlation_id)
        await on_update(CommandUpdate(command.command_id, CommandState.SENT, self.now))
        self.sent += 1
        self.register[command.credential] = command.parameters["power_w"]
        if self.silent:
            await asyncio.Event().wait()
        broken = command.correlation_id in self.breaks
        await on_update(
            CommandUpdate(command.command_id, CommandState.FAILED if broken else CommandState.ACKED, self.now)
        )

    def must_end(self, command: Command) -> bool:
        return True

    async def end(self, command: Command, before: Command | None = None) -> None:
        self.asked.append(command.credential)
        if command.credential in self.gone:
            raise ConnectionError("gone")
        self.ends.append((command.credential, command.correlation_id))
        self.register[command.credential] = IDLE if before is None else before.parameters["power_w"]


def planned(power_w: int, expires_at: int = 1_000, credential: str = "c") -> Planned:
    return Planned(f"did:{credential}", credential, "set_power", {"power_w": power_w}, 0, expires_at)


async def accept(dispatcher: Dispatcher, order: str, power_w: int, expires_at: int, credential: str = "c") -> None:
    told = planned(power_w, expires_at, credential)
    await dispatcher.accept(DispatchOrder(order, "agg", (OrderedIsp(1, 0, 900, 1),)), [told])


async def send(dispatcher: Dispatcher, order: str, power_w: int, expires_at: int, credential: str = "c") -> None:
    await accept(dispatcher, order, power_w, expires_at, credential)
    await asyncio.wait_for(dispatcher.finished(order), 60)


async def to_end(store: Store) -> int:
    query = "SELECT count(*) FROM dispatch_command WHERE end_at IS NOT NULL"
    return int(await store.read(lambda connection: connection.execute(query).fetchone()[0]))


async def ended_down_to(store: Store, count: int) -> None:
    for _ in range(6_000):
        if await to_end(store) <= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{await to_end(store)} commands are still to be ended")


@pytest.mark.parametrize("restart", [False, True])
async def test_a_shorter_command_within_a_longer_one(tmp_path: Path, restart: bool) -> None:
    """The newer is over first: the older rules again, and is ended at its own time."""
    devices = Devices(now=1)
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher:
            await send(dispatcher, "long", 5_000, 1_000)
            await send(dispatcher, "short", -7_000, 500)
            if not restart:
                devices.now = 600
                await ended_down_to(store, 1)
                assert devices.register == {"c": 5_000}
        devices.now = 1_100
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now):
            await ended_down_to(store, 0)
        assert devices.register == {"c": IDLE}
        assert len(devices.ends) == (1 if restart else 2), "nobody's later set point is written over"


async def test_a_newer_and_longer_command_is_not_ended_with_the_older(tmp_path: Path) -> None:
    devices = Devices(now=1)
    async with (
        Store(tmp_path / "s.db", [DISPATCH]) as store,
        Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher,
    ):
        await send(dispatcher, "first", 5_000, 500)
        await send(dispatcher, "second", -7_000, 1_000)
        devices.now = 600
        await ended_down_to(store, 1)
        assert devices.ends == [] and devices.register == {"c": -7_000}
        devices.now = 1_100
        await ended_down_to(store, 0)
        assert devices.ends == [("c", "second")] and devices.register == {"c": IDLE}


async def test_two_windows_that_are_over_together_are_ended_once(tmp_path: Path) -> None:
    devices = Devices(now=1)
    async with (
        Store(tmp_path / "s.db", [DISPATCH]) as store,
        Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher,
    ):
        await send(dispatcher, "first", 5_000, 500)
        await send(dispatcher, "second", -7_000, 500)
        devices.now = 600
        await ended_down_to(store, 0)
        assert devices.ends == [("c", "second")]


@pytest.mark.parametrize("older", ["acked", "sent", "none"])
async def test_what_failed_half_way_is_ended_at_once(tmp_path: Path, older: str) -> None:
    """The older command rules again, whether it was confirmed or not, and is ended at its own time."""
    devices = Devices(now=1, breaks={"second"}, silent=older == "sent")
    async with (
        Store(tmp_path / "s.db", [DISPATCH]) as store,
        Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher,
    ):
        if older != "none":
            await accept(dispatcher, "first", 5_000, 1_000)
            await until(lambda: devices.register == {"c": 5_000}, 60, "the first command")
            devices.silent = False
        await send(dispatcher, "second", -7_000, 2_000)
        await ended_down_to(store, 0 if older == "none" else 1)
        assert devices.ends == [("c", "second")] and devices.register == {"c": IDLE if older == "none" else 5_000}
        devices.now = 1_100
        await ended_down_to(store, 0)
        assert devices.register == {"c": IDLE}


async def test_what_failed_does_not_end_what_was_sent_after_it(tmp_path: Path) -> None:
    devices = Devices(now=1, breaks={"first"}, gone={"c"})
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher:
            await send(dispatcher, "first", 5_000, 1_000)
            await until(lambda: bool(devices.asked), 60, "a try to end it")
            await send(dispatcher, "second", -7_000, 2_000)
        devices.gone.clear()
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now):
            await ended_down_to(store, 1)
        assert devices.ends == [] and devices.register == {"c": -7_000}


async def test_a_restart_sends_again_in_the_order_of_sending(tmp_path: Path) -> None:
    """Whatever their ids: the device ends at the newer one, also when a life between got to the older one only."""
    devices = Devices(now=1, silent=True)
    names = sorted("abcdef", key=lambda order: planned(1).command_id(order), reverse=True)
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher:
            for count, order in enumerate(names, 1):
                await accept(dispatcher, order, 1, 1_000)
                await until(lambda n=count: devices.sent == n, 60, "the command")
                devices.now += 1
        for reached in (names[:1], names):
            devices.told, devices.sent, devices.held = [], 0, set(names) - set(reached)
            async with Dispatcher(store, "t", devices, clock=lambda: devices.now):
                await until(lambda wanted=reached: devices.sent == len(wanted), 60, "the commands")
            devices.now += 1
    assert devices.told == names


async def test_a_restart_sends_in_the_order_of_acceptance_what_was_never_sent(tmp_path: Path) -> None:
    devices = Devices(now=1)
    orders = ["d", "b", "a", "c", "e"]
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        closed = Dispatcher(store, "t", devices, clock=lambda: devices.now)  # not entered: it sends nothing
        for power_w, order in enumerate(orders):
            await accept(closed, order, power_w, 1_000)
            devices.now += 1
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now):
            await until(lambda: len(devices.told) == len(orders) and devices.register == {"c": 4}, 60, "all commands")
    assert devices.told == orders


async def test_a_restart_sends_no_older_command_over_a_newer_one_that_was_answered(tmp_path: Path) -> None:
    """The older one got no answer: whether the device had it is not known, and it does the newer one."""
    devices = Devices(now=1, silent=True)
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher:
            await accept(dispatcher, "long", 5_000, 1_000)
            await until(lambda: devices.sent == 1, 60, "the long one to be sent")
            devices.silent = False
            await send(dispatcher, "short", -7_000, 500)
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher:
            await send(dispatcher, "other", 100, 1_000, "d")
            assert devices.register == {"c": -7_000, "d": 100} and devices.told == ["long", "short", "other"]
            devices.now = 600
            await asyncio.wait_for(dispatcher.finished("long"), 60)
            assert devices.register["c"] == 5_000, "the older one rules again, and is answered"
            assert devices.ends[0] == ("c", "short")
            devices.now = 1_100
            await ended_down_to(store, 0)
            assert devices.register["c"] == IDLE


async def test_what_waits_for_its_window_costs_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices, read = Devices(now=1, held={"waits"}), 0
    known = dispatcher_module.read_commands

    def counting(connection: sqlite3.Connection, tenant: str, where: str, *values: object, order: str = "1") -> object:
        nonlocal read
        found = known(connection, tenant, where, *values, order=order)
        read += len(found) if "send_at" in where else 0
        return found

    monkeypatch.setattr(dispatcher_module, "read_commands", counting)
    monkeypatch.setattr(dispatcher_module, "POLL_S", 0.001)
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        dispatcher = Dispatcher(store, "t", devices, clock=lambda: devices.now, in_flight=2)
        async with dispatcher:
            await accept(dispatcher, "waits", 1, 1_000)
            await until(lambda: len(dispatcher._underway.tasks) == 1, 60)
            before, looks = read, 0
            for _ in range(20):
                looks += len(await dispatcher._due())
            assert looks == 0 and read - before <= 1, "one may have been read before it was under way"
            await send(dispatcher, "now", 2, 1_000, "d")


async def test_dead_devices_keep_no_other_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are always due again, and stand before it in the order of commands."""
    monkeypatch.setattr(ending, "IN_FLIGHT", 2)
    monkeypatch.setattr(ending, "MOST_RETRY_S", 0.0)
    devices = Devices(now=1)
    credentials: Sequence[str] = [f"c{n}" for n in range(8)]
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher:
            for credential in credentials:
                await send(dispatcher, credential, 1_000, 500, credential)
        query = "SELECT credential FROM dispatch_command ORDER BY send_at, command_id"
        order = [row[0] for row in await store.read(lambda connection: connection.execute(query).fetchall())]
        devices.gone, devices.now = set(order[:-1]), 600
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now):
            await until(lambda: devices.register[order[-1]] == IDLE, 60, "the end of the device that is there")
            await until(lambda: set(devices.asked) == set(credentials), 60, "a try of each")


@pytest.mark.parametrize("version", [2, 3])
async def test_what_an_earlier_version_has_sent_is_ended(tmp_path: Path, version: int) -> None:
    later = wall_ms() + 86_400_000
    added = (
        "INSERT INTO dispatch_command (tenant, command_id, order_id, did, credential, name, parameters, send_at, "
        "expires_at, state, open, detail, reported) VALUES ('t', ?, 'o', 'did:c', 'c', 'set_power', "
        "'{\"power_w\": 1}', 0, ?, ?, 0, '', '{}')"
    )

    def write(connection: sqlite3.Connection) -> None:
        connection.executemany(
            added, [("rules", later, "acked"), ("over", 1_000, "acked"), ("refused", later, "failed")]
        )
        if version == 3:
            connection.execute("UPDATE dispatch_command SET end_at = expires_at WHERE command_id = 'rules'")

    async with Store(tmp_path / "s.db", [replace(DISPATCH, migrations=DISPATCH.migrations[:version])]) as store:
        await store.write(write)
    devices = Devices(now=later, register={"c": 1})
    async with Store(tmp_path / "s.db", [DISPATCH]) as store:
        assert await to_end(store) == 1
        async with Dispatcher(store, "t", devices, clock=lambda: devices.now):
            await ended_down_to(store, 0)
    assert devices.ends == [("c", "o")] and devices.register == {"c": IDLE}


@pytest.mark.parametrize("of", [Dispatcher, ending.Endings])
async def test_what_was_due_before_it_was_done_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: type[Dispatcher] | type[ending.Endings]
) -> None:
    """Rows that were read while a command was under way are handed over after it is over."""
    looked, over, reads = asyncio.Event(), asyncio.Event(), 0
    due: Callable[..., Awaitable[Sequence[object]]] = of._due

    async def late(self: Dispatcher | ending.Endings) -> Sequence[object]:
        nonlocal reads
        rows = await due(self)
        if rows:
            reads += 1
            if reads == 2:
                looked.set()
                await asyncio.wait(list(self._underway.tasks.values()))
                over.set()
        return rows

    class Slow(Devices):
        async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
            self.asked.append("execute")
            if of is Dispatcher:
                await looked.wait()
            await super().execute(command, on_update)

        async def end(self, command: Command, before: Command | None = None) -> None:
            if of is ending.Endings:
                await looked.wait()
            await super().end(command, before)

    devices = Slow(now=1)
    monkeypatch.setattr(of, "_due", late)
    async with (
        Store(tmp_path / "s.db", [DISPATCH]) as store,
        Dispatcher(store, "t", devices, clock=lambda: devices.now) as dispatcher,
    ):
        await accept(dispatcher, "only", 5_000, 500)
        await until(lambda: "execute" in devices.asked, 60, "it to be under way")
        await send(dispatcher, "beside", 1, 500, "e")  # what is due is read again
        await asyncio.wait_for(dispatcher.finished("only"), 60)
        if of is ending.Endings:
            devices.now = 600
            await ended_down_to(store, 0)
        await asyncio.wait_for(over.wait(), 60)
        await send(dispatcher, "another", 1, 1_000, "d")  # a later round of both
        devices.now = 1_100
        await ended_down_to(store, 0)
        assert sorted(devices.ends) == [("c", "only"), ("d", "another"), ("e", "beside")]
        assert devices.asked.count("execute") == 3
