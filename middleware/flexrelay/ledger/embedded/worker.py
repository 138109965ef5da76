"""One thread that runs the engine's jobs in order; results go back to the event loop in batches."""

import asyncio
import queue
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

from flexrelay.ledger.port import LedgerUnavailable

T = TypeVar("T")

_MAX_WAITING = 20_000
_BATCH = 64
_BATCH_S = 0.002

_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]
_Done = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Worker:
    """Runs synchronous calls one after the other. Bounded: beyond 20,000 waiting calls it refuses new ones."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Run `function(*args)` on the thread. Raises LedgerUnavailable when too many calls wait."""
        if self._jobs.qsize() > _MAX_WAITING:
            raise LedgerUnavailable(f"more than {_MAX_WAITING} calls wait for the ledger; try again later")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((future, function, args))
        return future

    async def stop(self) -> None:
        """Finish what was given, then end the thread."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        done: list[_Done] = []
        since = 0.0
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            if not done:
                since = perf_counter()
            try:
                done.append((future, function(*args), None))
            except BaseException as error:
                done.append((future, None, error))
            if self._jobs.empty() or len(done) >= _BATCH or perf_counter() - since > _BATCH_S:
                self._loop.call_soon_threadsafe(_deliver, done)
                done = []
        if done:
            self._loop.call_soon_threadsafe(_deliver, done)


def _deliver(done: list[_Done]) -> None:
    for future, value, error in done:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
