"""Runs the engine's jobs in order: one thread for those that may wait for the disk, at once for the short ones.

A short job costs less than two threads cost each other (measured: a quarter of the ledger's speed), so it runs on the
event loop where nothing is before it. Jobs of one turn of the loop go over to the thread together and their results
come back together.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from flexrelay.ledger.port import LedgerUnavailable

T = TypeVar("T")

_MAX_WAITING = 20_000
_DELIVER_S = 0.005

_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]
_Done = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Worker:
    """Runs synchronous calls one after the other. Bounded: beyond 20,000 waiting calls it refuses new ones."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn: list[_Job] = []
        self._waiting = 0
        self._stopped = False
        self._jobs: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def idle(self) -> bool:
        """Whether nothing is before a short job, so that it may run at once where it is asked for."""
        return not (self._waiting or self._stopped)

    def call(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Run `function(*args)` on the thread. Raises LedgerUnavailable when too many calls wait, or it was stopped."""
        if self._stopped:
            raise LedgerUnavailable("the ledger is closed")
        if self._waiting >= _MAX_WAITING:
            raise LedgerUnavailable(f"more than {_MAX_WAITING} calls wait for the ledger; try again later")
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append((future, function, args))
        self._waiting += 1
        return future

    async def short(self, function: Callable[..., T], *args: Any) -> T:
        """`call` for a job of less than a millisecond or so that never waits for the disk."""
        return function(*args) if self.idle else await self.call(function, *args)

    async def stop(self, *last: Callable[[], None]) -> None:
        """Finish what was given, then do what is last and end the thread."""
        finished = [self.call(function) for function in last]
        self._stopped = True
        self._hand_over()
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        for future in finished:
            await future

    def _hand_over(self) -> None:
        if self._turn:
            self._jobs.put(self._turn)
            self._turn = []

    def _work(self) -> None:
        while (jobs := self._jobs.get()) is not None:
            done: list[_Done] = []
            since = perf_counter()
            for future, function, args in jobs:
                try:
                    done.append((future, function(*args), None))
                except BaseException as error:
                    done.append((future, None, error))
                if perf_counter() - since > _DELIVER_S:
                    self._loop.call_soon_threadsafe(self._deliver, done)
                    done, since = [], perf_counter()
            if done:
                self._loop.call_soon_threadsafe(self._deliver, done)

    def _deliver(self, done: list[_Done]) -> None:
        self._waiting -= len(done)
        for future, value, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
