"""The threads that run calls. Bounded twice: by threads that run, and by calls that run or wait."""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

_LOG: Final = logging.getLogger(__name__)


class Pool:
    """`threads` calls run at once, `limit` are taken at once; beyond it `submit` says no and the caller tells why."""

    def __init__(self, threads: int, limit: int) -> None:
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._limit = limit
        self._lock = threading.Lock()
        self._taken = 0
        self._moved = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name=f"call-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def taken(self) -> int:
        """Calls that run or wait."""
        return self._taken

    @property
    def stalled_s(self) -> float:
        """For how long no call has ended although all threads are taken."""
        return time.monotonic() - self._moved if self._taken >= len(self._threads) else 0.0

    @property
    def limit(self) -> int:
        return self._limit

    def submit(self, run: Callable[[], None]) -> bool:
        """Whether there is room for the call; it runs as soon as a thread is free."""
        with self._lock:
            if self._taken >= self._limit:
                return False
            if not self._taken:
                self._moved = time.monotonic()
            self._taken += 1
        self._queue.put(run)
        return True

    def close(self) -> None:
        """End the threads after the calls that wait. A thread that hangs in a contract dies with the process."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (run := self._queue.get()) is not None:
            try:
                run()
            except Exception:
                _LOG.exception("a call ended with a defect of the shim")
            finally:
                with self._lock:
                    self._taken -= 1
                    self._moved = time.monotonic()
