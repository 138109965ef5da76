"""Whether the other end of a connection is still there: when to ask it by a PING, and when to give it up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Pings:
    """In seconds. While calls wait: `waiting_s` after the last byte that came, each once until the server answers
    something again; and whatever happens, `idle_s` after the last byte and the last ping. A server that gives no byte
    at all within `answer_s` of a ping is gone. A call may take as long as it likes: the connection answers, not the
    call.

    gRPC servers in Go close a connection on the third ping that comes sooner than they allow (a peer by default: a
    minute, `peer.keepalive.minInterval`) unless they sent an answer in between: hence no more than two early ones.
    """

    waiting_s: tuple[float, float] = (5.0, 20.0)
    idle_s: float = 65.0
    answer_s: float = 5.0


PINGS: Final = Pings()


class Pulse:
    """`busy` says whether calls wait, `ping` sends one, `dead` is told for how many seconds nothing came."""

    def __init__(
        self, pings: Pings, busy: Callable[[], bool], ping: Callable[[], None], dead: Callable[[float], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pings = pings
        self._busy = busy
        self._ping = ping
        self._dead = dead
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._asked = self._pinged = self._loop.time()
        self._awaited: float | None = None
        self._again = False
        self._early = 0
        self.last_answer = float("-inf")
        """When a piece of an answer came last, by the loop's clock."""

    def start(self) -> None:
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def heard(self) -> None:
        """Something came, anything."""
        self._heard = self._loop.time()
        self._awaited = None

    def answered(self) -> None:
        """A piece of an answer came: the server has forgiven the early pings."""
        self._early = 0
        self.last_answer = self._loop.time()

    def asked(self) -> None:
        """The first call after none."""
        self._asked = self._loop.time()

    @property
    def answers(self) -> bool:
        """Whether there was a ping since the last answer, and it was answered."""
        return self._early > 0 and self._awaited is None

    def _look(self) -> None:
        now = self._loop.time()
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        if self._awaited is not None:
            if now - self._awaited < self._pings.answer_s:
                return
            if self._again:  # twice, so that an answer that lies here unread (this process stood still) is read first
                self._dead(now - self._heard)
            self._again = True
            return
        self._again = False
        silent = now - max(self._heard, self._asked) if self._busy() else 0.0
        if self._early < len(self._pings.waiting_s) and silent >= self._pings.waiting_s[self._early]:
            self._early += 1
            self._send(now)
        elif now - max(self._heard, self._pinged) >= self._pings.idle_s:
            self._send(now)

    def _send(self, now: float) -> None:
        self._pinged = self._awaited = now
        self._ping()
