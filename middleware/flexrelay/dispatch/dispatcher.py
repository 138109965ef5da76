"""Sends an order's commands: on disk before anything is sent, each to exactly one end.

A command keeps its id for ever. After a restart, or when a transport fails, one that has not ended is handed over again
under the same id, and a device acts once on an id (the SDK's rule): so nothing is lost and nothing is done twice. After
`expires_at` it is not handed over any more, and what it left behind is ended (`flexrelay.dispatch.ending`).
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from flexrelay.dispatch.ending import ENDS_NOW, HELD, SENT_LAST, Endings
from flexrelay.dispatch.plan import DispatchOrder, Planned
from flexrelay.dispatch.records import AS_SENT, WATCH, CommandRecord, CommandStep, add_step, read_commands, read_steps
from flexrelay.dispatch.underway import Underway
from flexrelay.store import Store, StoreUnavailable
from flexrelay_schemas.canonical import digest
from flexrelay_sdk import Command, CommandEnder, CommandState, CommandTarget, CommandUpdate
from flexrelay_sdk.clock import wall_ms

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 4_096
"""More than the devices that may be silent at once: each holds its place until the command expires."""
NEAR_MS: Final = 900_000
"""Commands whose window begins later leave a quarter of the places to the others: a day ahead thousands may be ordered,
and an order of the same hour must not wait for them."""
POLL_S: Final = 0.25
RETRY_S: Final = 0.5


class Dispatcher:
    """Async context manager: sends while it is open. One tenant's commands in a store with component DISPATCH."""

    def __init__(
        self,
        store: Store,
        tenant: str,
        target: CommandTarget,
        *,
        clock: Callable[[], int] = wall_ms,
        in_flight: int = IN_FLIGHT,
        retry_s: float = RETRY_S,
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._target = target
        self._clock = clock
        self._retry_s = retry_s
        self._underway = Underway(in_flight)
        self._spare = in_flight // 4
        self._postponed: dict[str, int] = {}
        """Commands that found no place and need none yet; until when, wall-clock UTC ms."""
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def accept(
        self, order: DispatchOrder, commands: Sequence[Planned], *, watch: Sequence[str] = ()
    ) -> list[str]:
        """Take an order on; durable when it returns. The same order again adds nothing.

        `watch`: DIDs whose readings show delivery (meters); the commanded devices' own count as well. Returns the
        command ids.
        """
        now = self._clock()
        ids = await self._store.write(lambda connection: self.accept_in(connection, order, commands, watch, now))
        self._changed.set()
        return ids

    def accept_in(
        self,
        connection: sqlite3.Connection,
        order: DispatchOrder,
        commands: Sequence[Planned],
        watch: Sequence[str],
        now: int,
    ) -> list[str]:
        """`accept` inside the caller's transaction on a connection to the same file."""
        known = read_commands(connection, self._tenant, "order_id = ?", order.order_id)
        added = connection.execute(
            "INSERT OR IGNORE INTO dispatch_order (tenant, order_id, body, accepted_at) VALUES (?, ?, ?, ?)",
            (self._tenant, order.order_id, json.dumps(_body(order), sort_keys=True), now),
        ).rowcount
        if not added:  # a plan that was made anew may differ (another battery available): the first one stands
            return [record.command.command_id for record in known]
        for planned in commands:
            self._add(connection, order.order_id, planned, now)
        connection.executemany(
            WATCH,
            [
                (self._tenant, order.order_id, did, order.from_ms, order.until_ms)
                for did in sorted({*watch, *(planned.did for planned in commands)})
            ],
        )
        return [planned.command_id(order.order_id) for planned in commands]

    async def commands(self, order_id: str) -> list[CommandRecord]:
        return await self._store.read(
            lambda connection: read_commands(connection, self._tenant, "order_id = ?", order_id)
        )

    async def steps(self, command_id: str) -> list[CommandStep]:
        return await self._store.read(lambda connection: read_steps(connection, self._tenant, command_id))

    async def finished(self, order_id: str) -> list[CommandRecord]:
        """Wait until every command of the order has ended."""
        while True:
            ended = self._ended
            records = await self.commands(order_id)
            if all(record.state.terminal for record in records):
                return records
            await ended.wait()

    async def commanded_hash(self, order_id: str) -> str:
        """SHA-256 over what was commanded: the hash of the activation's stage "commanded"."""
        return digest([_commanded(record) for record in await self.commands(order_id)])

    async def activated_hash(self, order_id: str) -> str:
        """SHA-256 over what came of it: the hash of the activation's stage "activated"."""
        records = await self.commands(order_id)
        return digest(
            [
                {**_commanded(r), "state": r.state.value, "detail": r.detail, "reported": dict(r.reported)}
                for r in records
            ]
        )

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._run(), name="dispatch")]
        if isinstance(self._target, CommandEnder):
            endings = Endings(self._store, self._tenant, self._target, self._clock)
            self._tasks.append(self._group.create_task(endings.run(), name="ends of commands"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        for task in [*self._tasks, *self._underway.tasks.values()]:
            task.cancel()
        # the body's own exception goes on as it is; a cancellation is the group's to sort out
        mine = (kind, value, trace) if kind is asyncio.CancelledError else (None, None, None)
        await self._group.__aexit__(*mine)

    async def _run(self) -> None:
        assert self._group is not None
        while True:
            self._changed.clear()
            self._underway.look()
            for record in await self._due():
                one, near_at = record.command.command_id, record.command.begins_at - NEAR_MS
                far = near_at > self._clock()
                if self._underway.has_room_for(one, self._spare if far else 0):
                    self._underway.begin(self._group, one, self._send(record), f"command-{one}")
                elif far:
                    self._postponed[one] = near_at
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()

    async def _due(self) -> list[CommandRecord]:
        """In the order in which they are handed over: after a restart a device must not stay at the older of two.

        Thousands may wait for their windows for hours: they are read when there is one to begin with."""
        now = self._clock()
        due = "open = 1 AND send_at <= ?"
        may_wait = not self._underway.free(self._spare)
        self._postponed = {one: until for one, until in self._postponed.items() if may_wait and until > now}
        known = self._underway.tasks.keys() | self._postponed.keys()

        def read(connection: sqlite3.Connection) -> list[CommandRecord]:
            query = f"SELECT command_id FROM dispatch_command WHERE tenant = ? AND {due}"  # noqa: S608 - constants
            ids = connection.execute(query, (self._tenant, now))
            if all(each in known for (each,) in ids):
                return []
            return read_commands(connection, self._tenant, due, now, order=AS_SENT)

        if not self._underway.free():
            return []
        try:
            return await self._store.read(read)
        except StoreUnavailable as error:
            logger.warning("due commands of %s cannot be read: %s; again soon", self._tenant, error)
            return []
        except Exception:
            logger.exception("due commands of %s cannot be read; again soon", self._tenant)
            return []

    async def _send(self, record: CommandRecord) -> None:
        """Outermost loop of one command."""
        command = record.command
        try:
            if self._clock() >= command.expires_at:
                update = CommandUpdate(command.command_id, CommandState.EXPIRED, self._clock(), "no answer in time")
                await self._record(update)
                return
            if record.state is CommandState.SENT and await self._is_held(command):
                await asyncio.sleep(self._retry_s)
                return
            await self._target.execute(command, self._recorder(command))
            if not await self._is_open(command.command_id):
                return
            await asyncio.sleep(self._retry_s)
        except StoreUnavailable as error:
            logger.warning("command %s of order %s: %s; again soon", command.command_id, command.correlation_id, error)
            await asyncio.sleep(self._retry_s)
        except Exception:
            logger.exception("command %s of order %s failed; again soon", command.command_id, command.correlation_id)
            await asyncio.sleep(self._retry_s)
        finally:
            self._underway.over(command.command_id)
            self._changed.set()
            ended, self._ended = self._ended, asyncio.Event()
            ended.set()

    def _recorder(self, command: Command) -> Callable[[CommandUpdate], Awaitable[None]]:
        ends = isinstance(self._target, CommandEnder) and self._target.must_end(command)

        async def record(update: CommandUpdate) -> None:
            await self._record(update, command.expires_at if ends and update.state is CommandState.SENT else None)

        return record

    async def _record(self, update: CommandUpdate, end_at: int | None = None) -> None:
        """Every state on disk with its time; the first end counts. `end_at`: when the command has to be ended."""

        def work(connection: sqlite3.Connection) -> None:
            if end_at is not None:
                connection.execute(SENT_LAST, {"end_at": end_at, "tenant": self._tenant, "id": update.command_id})
            moved = connection.execute(
                "UPDATE dispatch_command SET state = ?, open = ?, detail = ?, reported = ? "
                "WHERE tenant = ? AND command_id = ? AND open = 1",
                (
                    update.state.value,
                    0 if update.state.terminal else 1,
                    update.detail,
                    json.dumps(dict(update.values), sort_keys=True),
                    self._tenant,
                    update.command_id,
                ),
            ).rowcount
            if moved:
                add_step(connection, self._tenant, update.command_id, update.at, update.state, update.detail)
            if moved and update.state is CommandState.FAILED:
                connection.execute(ENDS_NOW, {"now": self._clock(), "tenant": self._tenant, "id": update.command_id})

        await self._store.write(work)

    async def _is_held(self, command: Command) -> bool:
        """By a newer one that was sent to the device, and is done by it, before a restart or a failure."""
        values = {"tenant": self._tenant, "id": command.command_id}
        return await self._store.read(lambda connection: connection.execute(HELD, values).fetchone() is not None)

    async def _is_open(self, command_id: str) -> bool:
        found = await self._store.read(
            lambda connection: read_commands(connection, self._tenant, "command_id = ? AND open = 1", command_id)
        )
        return bool(found)

    def _add(self, connection: sqlite3.Connection, order_id: str, planned: Planned, now: int) -> None:
        command_id = planned.command_id(order_id)
        connection.execute(
            "INSERT INTO dispatch_command (tenant, command_id, order_id, did, credential, name, parameters, send_at, "
            "expires_at, state, open, detail, reported) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, '', '{}')",
            (
                self._tenant,
                command_id,
                order_id,
                planned.did,
                planned.credential,
                planned.name,
                json.dumps(dict(planned.parameters), sort_keys=True),
                planned.send_at,
                planned.expires_at,
                CommandState.QUEUED.value,
            ),
        )
        add_step(connection, self._tenant, command_id, now, CommandState.QUEUED, "")


def _body(order: DispatchOrder) -> dict[str, Any]:
    isps = [{"isp": i.isp, "from_ms": i.from_ms, "until_ms": i.until_ms, "power_w": i.power_w} for i in order.isps]
    return {"order_id": order.order_id, "aggregator": order.aggregator, "isps": isps}


def _commanded(record: CommandRecord) -> dict[str, Any]:
    command = record.command
    return {
        "command_id": command.command_id,
        "did": command.did,
        "name": command.name,
        "parameters": dict(command.parameters),
        "expires_at": command.expires_at,
    }
