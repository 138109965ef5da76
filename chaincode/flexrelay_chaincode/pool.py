"""Where calls run: each in a greenlet of the thread that reads the peer's stream, so nothing is handed between threads.

A call that waits for its peer gives the thread to the next one. A call that computes for long keeps it, and another
thread goes on reading (see `connection`). Bounded twice: by calls that run or wait, and by threads.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from greenlet import getcurrent, greenlet

_LOG: Final = logging.getLogger(__name__)


class Lane:
    """One thread's calls. `alive`: those that have not ended; `inbox`: places that other threads have given to."""

    def __init__(self) -> None:
        self.alive = 0
        self.inbox: SimpleQueue[Place] = SimpleQueue()

    def resume(self) -> None:
        """Go on with the calls that others have given something to."""
        while not self.inbox.empty():
            self.inbox.get().resume()


class _Here(threading.local):
    def __init__(self) -> None:
        self.lane = Lane()


_HERE: Final = _Here()


def lane_here() -> Lane:
    """This thread's lane."""
    return _HERE.lane


class Place:
    """Where one call waits for what others give it."""

    __slots__ = ("_given", "_lane", "_parked")

    def __init__(self) -> None:
        self._given: deque[Any] = deque()
        self._lane: Lane | None = None
        self._parked: greenlet | None = None

    def wait(self) -> Any:
        """The next thing given. In a call of a pool only; the thread goes on with whoever started it."""
        self._lane = _HERE.lane  # before the look: whoever gives looks for the lane afterwards
        if not self._given:
            self._parked = current = getcurrent()
            while not self._given:
                assert current.parent is not None
                current.parent.switch()
            self._parked = None
        return self._given.popleft()

    def give(self, item: Any) -> None:
        """From any thread, but not from a call."""
        self._given.append(item)
        lane = self._lane
        if lane is _HERE.lane:
            self.resume()
        elif lane is not None:
            lane.inbox.put(self)

    def resume(self) -> None:
        """In the lane's own thread: let the call go on when it waits and something is there."""
        if self._parked is not None and self._given:
            self._parked.switch()


class Pool:
    """At most `limit` calls at once; beyond it `submit` says no and the caller tells why. At most `threads` threads:
    one reads, the others each finish a call that computes."""

    def __init__(self, threads: int, limit: int) -> None:
        self._threads = threads
        self._limit = limit
        self._lock = threading.Lock()
        self._taken = 0
        self._lent = 0
        self._stalled = 0.0

    @property
    def taken(self) -> int:
        """Calls that run or wait."""
        return self._taken

    @property
    def stalled_s(self) -> float:
        """For how long no thread has been left to read."""
        since = self._stalled
        return time.monotonic() - since if since else 0.0

    @property
    def limit(self) -> int:
        return self._limit

    def submit(self, run: Callable[[], None]) -> bool:
        """Whether there was room for the call; it has run to its end or to its first `Place.wait`."""
        with self._lock:
            if self._taken >= self._limit:
                return False
            self._taken += 1
        _HERE.lane.alive += 1
        greenlet(self._work).switch(run)
        return True

    def lend(self) -> bool:
        """Whether a further thread may read because a call keeps the one that did. Until `returned`."""
        with self._lock:
            if self._lent + 1 >= self._threads:
                self._stalled = self._stalled or time.monotonic()
                return False
            self._lent += 1
            return True

    def returned(self) -> None:
        """The call that kept its thread has ended, or waits."""
        with self._lock:
            self._lent -= 1
            self._stalled = 0.0

    def moved(self) -> None:
        """The reading thread reads again: none was lent, and none is needed any more."""
        if self._stalled:
            with self._lock:
                self._stalled = 0.0

    def _work(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception:
            _LOG.exception("a call ended with a defect of the shim")
        finally:
            with self._lock:
                self._taken -= 1
            _HERE.lane.alive -= 1
