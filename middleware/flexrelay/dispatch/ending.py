"""Ends what commands left behind: a device that has no timer of its own goes back when the window is over, or at once
when it failed half way.

That a command was sent, and has to be ended, is on disk before the transport gets it (`Dispatcher`); so neither a kill
nor a long time without a gateway, or without the device, leaves a device at what it was told.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Final

from flexrelay.dispatch.records import read_commands
from flexrelay.dispatch.underway import Underway
from flexrelay.store import Store, StoreUnavailable
from flexrelay_sdk import Command, CommandEnder

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 64
POLL_S: Final = 0.25
PATIENCE_S: Final = 15.0
"""What one device may take; others wait for their turn meanwhile."""
RETRY_S: Final = 1.0
MOST_RETRY_S: Final = 60.0
GIVE_UP_MS: Final = 7 * 24 * 3600 * 1000
"""After it a device that was never reached again is left as it is, with an error in the log."""

SENT_LAST: Final = (
    "UPDATE dispatch_command SET end_at = :end_at, sent_n = (SELECT coalesce(max(other.sent_n), 0) + 1 "
    "FROM dispatch_command AS other WHERE other.tenant = dispatch_command.tenant AND other.did = dispatch_command.did "
    "AND other.name = dispatch_command.name AND other.end_at IS NOT NULL) WHERE tenant = :tenant AND command_id = :id"
)
"""A command is sent, and is to be ended at `end_at`: the newest of its name that the device got."""
ENDS_NOW: Final = (
    "UPDATE dispatch_command SET end_at = min(end_at, :now) "
    "WHERE tenant = :tenant AND command_id = :id AND end_at IS NOT NULL"
)
"""A command failed after it was sent: what it left half done must not stay until its time is over."""
# a count, no instant: what was sent last holds the device, whatever the clock does and whichever window is over first
_SAME: Final = (
    "did = :did AND credential = :credential AND name = :name AND command_id <> :id AND end_at IS NOT NULL "
    "AND (coalesce(sent_n, 0), expires_at) {} "
    "(SELECT coalesce(sent_n, 0), expires_at FROM dispatch_command WHERE tenant = :tenant AND command_id = :id)"
)
_NEWER: Final = f"tenant = :tenant AND {_SAME.format('>')} AND state <> 'failed'"
HELD: Final = (
    "SELECT 1 FROM dispatch_command AS newer JOIN dispatch_command AS mine ON newer.tenant = mine.tenant "
    "AND newer.did = mine.did AND newer.credential = mine.credential AND newer.name = mine.name "
    "AND newer.sent_n > mine.sent_n WHERE mine.tenant = :tenant AND mine.command_id = :id "
    "AND mine.end_at IS NOT NULL AND newer.end_at IS NOT NULL AND newer.state = 'acked'"
)
"""Whether the device does a newer command than one that was sent, and got no answer: it is not sent again before that
one is ended."""
_OLDER: Final = f"tenant = :tenant AND {_SAME.format('<')} AND state IN ('sent', 'acked') AND end_at > :now"


class Endings:
    """`run` until cancelled: ends what is due in a store with component DISPATCH, through `target`."""

    def __init__(
        self, store: Store, tenant: str, target: CommandEnder, clock: Callable[[], int], *, retry_s: float = RETRY_S
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._target = target
        self._clock = clock
        self._retry_s = retry_s
        self._underway = Underway(IN_FLIGHT)
        self._failed: dict[str, tuple[int, float]] = {}
        """Command → (failures, when it is tried again, the loop's clock)."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                now = asyncio.get_running_loop().time()
                self._underway.look()
                for command in sorted(await self._due(), key=self._next_try):
                    one = command.command_id
                    if self._next_try(command) <= now and self._underway.has_room_for(one):
                        self._underway.begin(group, one, self._end(command), f"end of command-{one}")
                await asyncio.sleep(POLL_S)

    def _next_try(self, command: Command) -> float:
        """The loop's clock. What was not tried yet comes first: many dead devices keep no other from its end."""
        return self._failed.get(command.command_id, (0, 0.0))[1]

    async def _due(self) -> list[Command]:
        """Sent, over or failed, and not ended yet."""
        now = self._clock()
        try:
            records = await self._store.read(
                lambda connection: read_commands(connection, self._tenant, "end_at IS NOT NULL AND end_at <= ?", now)
            )
        except StoreUnavailable as error:
            logger.warning("commands of %s that are over cannot be read: %s; again soon", self._tenant, error)
            return []
        except Exception:
            logger.exception("commands of %s that are over cannot be read; again soon", self._tenant)
            return []
        return [record.command for record in records]

    async def _end(self, command: Command) -> None:
        """Outermost loop of one command's end."""
        try:
            if not await self._is_held(command):
                before = await self._before(command)
                async with asyncio.timeout(PATIENCE_S):
                    await self._target.end(command, before)
            await self._done(command)
        except (ConnectionError, TimeoutError, StoreUnavailable) as error:
            await self._again(command, str(error) or "the device is not there")
        except ValueError as error:
            logger.error("%s of %s cannot be ended: %s", command.name, command.credential, error)
            await self._give_up(command)
        except Exception as error:
            logger.exception("%s of %s cannot be ended now", command.name, command.credential)
            await self._again(command, repr(error))
        finally:
            self._underway.over(command.command_id)

    async def _is_held(self, command: Command) -> bool:
        """Whether a newer command of the same name was sent to the device, which will be ended itself."""
        return bool(await self._others(command, _NEWER))

    async def _before(self, command: Command) -> Command | None:
        """The newest command that the device was told before this one, has not refused, and whose time is not over: it
        rules again."""
        found = await self._others(command, _OLDER)
        return found[-1] if found else None

    async def _others(self, command: Command, where: str) -> list[Command]:
        """Of the same device and name; in the order in which they were sent."""
        values = {
            "tenant": self._tenant, "did": command.did, "credential": command.credential, "name": command.name,
            "id": command.command_id, "now": self._clock(),
        }  # fmt: skip
        query = f"SELECT command_id FROM dispatch_command WHERE {where} ORDER BY coalesce(sent_n, 0), expires_at"  # noqa: S608 - constants

        def read(connection: sqlite3.Connection) -> list[Command]:
            ids = [row[0] for row in connection.execute(query, values)]
            return [read_commands(connection, self._tenant, "command_id = ?", each)[0].command for each in ids]

        return await self._store.read(read)

    async def _again(self, command: Command, why: str) -> None:
        failures = self._failed.get(command.command_id, (0, 0.0))[0] + 1
        pause_s = min(MOST_RETRY_S, self._retry_s * 2 ** min(failures - 1, 10))
        self._failed[command.command_id] = (failures, asyncio.get_running_loop().time() + pause_s)
        logger.log(
            logging.WARNING if failures == 1 else logging.DEBUG,
            "%s of %s is over and cannot be ended now: %s; again in %g s",
            command.name, command.credential, why, pause_s,
        )  # fmt: skip
        if self._clock() - command.expires_at > GIVE_UP_MS:
            logger.error("%s of %s was never ended: %s", command.name, command.credential, why)
            await self._give_up(command)

    async def _give_up(self, command: Command) -> None:
        try:
            await self._done(command)
        except StoreUnavailable as error:
            logger.warning("that %s of %s is given up cannot be kept: %s", command.name, command.credential, error)

    async def _done(self, command: Command) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE dispatch_command SET end_at = NULL WHERE tenant = ? AND command_id = ?",
                (self._tenant, command.command_id),
            )

        await self._store.write(work)
        self._failed.pop(command.command_id, None)
