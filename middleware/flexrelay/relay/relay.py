"""The relay: carries the outbox's entries to the ledger, several at once, each to exactly one recorded end."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from flexrelay.ledger.port import Ledger
from flexrelay.outbox import Entry, Outbox, OutboxId
from flexrelay.relay.alarms import Alarms
from flexrelay.relay.follower import Follower
from flexrelay.relay.journey import Journey, Pace, SignIntent
from flexrelay.relay.lanes import Lanes
from flexrelay.store import StoreUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """`in_flight`: entries carried at once (a Fabric peer serves about 64 per gateway well). Times in seconds."""

    in_flight: int = 64
    poll_s: float = 1.0
    """How often the outbox is read without being woken: for entries that another process added."""
    drain_s: float = 2.0
    """How long a stop waits for entries in flight; they go on after the next start."""
    pace: Pace = field(default_factory=Pace)


class Relay:
    """Async context manager. `sign` signs the gateway's voids; without it an intent whose envelope is lost past its
    deadline stays open."""

    def __init__(
        self,
        ledger: Ledger,
        outbox: Outbox,
        *,
        sign: SignIntent | None = None,
        options: RelayOptions = RelayOptions(),
    ) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._sign = sign
        self._options = options
        self._follower = Follower(ledger, outbox)
        self.alarms = Alarms()
        self._lanes = Lanes()
        self._carried: dict[int, asyncio.Task[None]] = {}
        self._last = 0
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._services: list[asyncio.Task[None]] = []

    @property
    def in_flight(self) -> int:
        return len(self._carried)

    @property
    def waiting(self) -> int:
        return len(self._lanes)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._outbox.on_change(lambda: _wake(loop, self._changed))
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._services = [
            self._group.create_task(self._follower.run(), name="relay-follower"),
            self._group.create_task(self._schedule(), name="relay-schedule"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop taking, let those in flight end for `drain_s`, then leave them to the next start."""
        assert self._group is not None
        self._services[1].cancel()
        try:
            if self._carried and kind is None:
                await asyncio.wait(list(self._carried.values()), timeout=self._options.drain_s)
        finally:
            for task in [*self._carried.values(), *self._services]:
                task.cancel()
            # the body's own exception goes on as it is; a cancellation is the group's to sort out
            mine = (kind, value, trace) if kind is asyncio.CancelledError else (None, None, None)
            await self._group.__aexit__(*mine)

    async def _schedule(self) -> None:
        assert self._group is not None
        while True:
            self._changed.clear()
            try:
                for entry, key, gate in await self._outbox.open_keys(self._last):
                    self._lanes.add(entry, key, gate)
                    self._last = entry
            except StoreUnavailable as error:
                logger.warning("the outbox cannot be read: %s", error)
            while len(self._carried) < self._options.in_flight and (following := self._lanes.take()) is not None:
                task = self._group.create_task(self._carry(following), name=f"relay-{following}")
                self._carried[following] = task
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.poll_s):
                    await self._changed.wait()

    def _journey(self, entry: Entry) -> Journey:
        pace = self._options.pace
        return Journey(entry, self._ledger, self._outbox, self._follower, self._sign, pace, self.alarms)

    async def _carry(self, entry: int) -> None:
        """Outermost loop of one entry: what is stored decides where it goes on after a failure."""
        pace = self._options.pace
        try:
            while True:
                try:
                    found = await self._outbox.entry(OutboxId(entry))
                    if not found.state.terminal:
                        await self._journey(found).run()
                    break
                except StoreUnavailable as error:
                    tenant = self._outbox.tenant
                    logger.warning("entry %s of the outbox of %s cannot go on: %s; again later", entry, tenant, error)
                    await asyncio.sleep(pace.longest / 4)
                except Exception:
                    logger.exception("entry %s of the outbox of %s failed; again later", entry, self._outbox.tenant)
                    await asyncio.sleep(pace.longest / 4)
        finally:
            self.alarms.over(entry)
            del self._carried[entry]
        self._lanes.done(entry)
        self._changed.set()


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(changed.set)
    except RuntimeError:  # the loop is closed: there is nobody to wake
        pass
