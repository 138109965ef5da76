"""One call on its way through this process: its requests to the peer, and its one reply."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from flexrelay_chaincode import wire
from flexrelay_chaincode.failure import Rejected
from flexrelay_chaincode.pool import Place

Send = Callable[[bytes], None]
"""Takes a marshalled message for the peer, from any thread."""

_ENDED: Final = object()


class Call:
    """Runs in one greenlet; the stream's reader hands it the peer's answers, others may end it from outside.

    Exactly one reply leaves: the call's own, or the one of whoever ended it before.
    """

    def __init__(self, message: Any, send: Send, *, timeout_s: float, max_bytes: int) -> None:
        self.channel: str = message.channel_id
        self.tx_id: str = message.txid
        self.message = message
        self.started = time.monotonic()
        self.deadline = self.started + timeout_s
        self.waiting = False
        """Whether the peer still owes an answer."""
        self._timeout_s = timeout_s
        self._send = send
        self._max_bytes = max_bytes
        self._place = Place()
        self._unclaimed = threading.Lock()
        self.broken: Rejected | None = None
        """Why the call cannot end well any more; a contract that swallows the exception changes nothing."""

    @property
    def open(self) -> bool:
        return self.broken is None and not self._unclaimed.locked()

    def claim(self) -> bool:
        """Whether the caller is the one who replies."""
        return self._unclaimed.acquire(blocking=False)

    def answer(self, message: Any) -> None:
        """The peer's answer to the request that is out."""
        self._place.give(message)

    def end(self) -> None:
        """Wake the call: whoever claimed the call has replied, or nobody is left to reply to."""
        self._place.give(_ENDED)

    def ask(self, kind: int, payload: bytes) -> bytes:
        if self.broken is not None:
            raise self.broken
        try:
            return self._ask(kind, payload)
        except Rejected as error:
            self.broken = error
            raise

    def _ask(self, kind: int, payload: bytes) -> bytes:
        if len(payload) > self._max_bytes:
            name = wire.ChaincodeMessage.Type.Name(kind)
            raise Rejected("too_large", f"a request {name} has {len(payload)} bytes, the limit is {self._max_bytes}")
        self.waiting = True  # before the look at the claim: whoever claims looks at `waiting` afterwards
        if self._unclaimed.locked():
            self.waiting = False
            raise self._too_late()
        self._send(
            wire.ChaincodeMessage(
                type=kind, payload=payload, txid=self.tx_id, channel_id=self.channel
            ).SerializeToString()
        )
        answer = self._place.wait()  # the session watches the deadline
        if answer is _ENDED:
            raise self._too_late()
        if answer.type != wire.ChaincodeMessage.RESPONSE:
            raise Rejected("peer_error", answer.payload.decode("utf-8", "replace"))
        given: bytes = answer.payload
        return given

    def _too_late(self) -> Rejected:
        return Rejected("deadline", f"the call took longer than {self._timeout_s:g} s")
