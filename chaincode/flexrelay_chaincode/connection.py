"""One peer's connection: a thread reads it and runs the calls, and what they send leaves together.

A call that computes for longer keeps the thread. Then another thread reads on, and the first one stays with the calls
that it has begun until they have ended.
"""

import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from socket import socket
from typing import Final

from flexrelay_chaincode import wire
from flexrelay_chaincode.http2 import Code, Ended, Event, Http2, Message, Opened, ProtocolFault, Status
from flexrelay_chaincode.pool import Pool, lane_here
from flexrelay_chaincode.session import Session
from flexrelay_chaincode.transport import Transport

_LOG: Final = logging.getLogger(__name__)
_KEPT_S: Final = 0.05
"""For how long a call may keep the thread before another one reads."""

NewSession = Callable[[Callable[[bytes], None]], Session]


class Connection:
    """`new_session` makes the session of a stream from its way to send. `ended` is called once."""

    def __init__(
        self,
        sock: socket,
        address: str,
        context: ssl.SSLContext | None,
        max_message_bytes: int,
        pool: Pool,
        new_session: NewSession,
        ended: Callable[["Connection"], None],
    ) -> None:
        self._transport = Transport(sock, context)
        self._address = address
        self._http2 = Http2(max_message_bytes)
        self._pool = pool
        self._new_session = new_session
        self._ended = ended
        self.sessions: dict[int, Session] = {}
        self._events: deque[Event] = deque()
        self._lock = threading.Lock()
        """Of `_http2`; never held while something blocks."""
        self._sending = threading.Lock()
        self._reading = threading.Lock()
        self._reader = 0
        self._since = 0.0
        """When the reading thread began with what it does now; 0 while it waits for bytes."""

    def start(self) -> None:
        self._read_in_thread(self._begin)

    def _read_in_thread(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=f"chaincode-peer-{self._address}", daemon=True)
        thread.start()

    def look_after(self) -> None:
        """Let another thread read when a call keeps the one that does. Called now and then, from one thread."""
        since = self._since
        if not since or time.monotonic() - since < _KEPT_S or not self._reading.acquire(blocking=False):
            return
        try:
            if self._since == since and self._pool.lend():
                self._since, self._reader = 0.0, 0
                self._read_in_thread(self._read)
        finally:
            self._reading.release()
        self.flush()

    def end(self, stream: int, reason: str) -> None:
        """End one stream, with a reason for the peer. From any thread."""
        with self._lock:
            self._http2.finish(stream, Status.FAILED_PRECONDITION, reason)
        self.flush()
        session = self.sessions.pop(stream, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        with self._lock:
            for stream in self.sessions.copy():
                self._http2.finish(stream)
            self._http2.goodbye()
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what has been collected."""
        with self._sending:
            with self._lock:
                data = self._http2.outgoing()
            if data:
                try:
                    self._transport.send(data)
                except OSError as error:
                    _LOG.info("nothing can be sent to %s: %s", self._address, error)
                    self._transport.close()

    def _send(self, stream: int, data: bytes) -> None:
        with self._lock:
            self._http2.send(stream, data)
        if threading.get_ident() != self._reader:  # the reader does it when it has done all that came
            self.flush()

    def _begin(self) -> None:
        try:
            self._transport.begin()
        except OSError as error:
            _LOG.warning("no connection with %s: %s", self._address, error)
            self._over()
        else:
            self.flush()
            self._read()

    def _read(self) -> None:
        """Until the connection ends, or another thread has taken over and this one's calls have ended."""
        own, lane = threading.get_ident(), lane_here()
        with self._reading:
            self._reader = own
        try:
            while self._more(own):
                lane.resume()
                while self._events and self._reader == own:
                    self._since = time.monotonic()
                    self._handle(self._events.popleft())
                self.flush()
        except ProtocolFault as error:
            _LOG.warning("%s does not speak HTTP/2 as it should: %s", self._address, error)
            self._fault(error.code)
        except OSError as error:
            _LOG.info("the connection with %s broke: %s", self._address, error)
        except Exception:
            _LOG.exception("reading from %s failed", self._address)
        if self._reader == own:
            self._over()
        else:
            self._pool.returned()
        while lane.alive:
            lane.inbox.get().resume()
            self.flush()

    def _more(self, own: int) -> bool:
        """Wait for bytes. False when another thread reads now, or nothing comes any more."""
        with self._reading:
            if self._reader != own:
                return False
            self._since = 0.0
            self._pool.moved()
            data = self._transport.receive()
            if data == b"":
                return False
            self._since = time.monotonic()
            if data is not None:
                with self._lock:
                    self._events += self._http2.receive(data)
            return True

    def _handle(self, event: Event) -> None:
        match event:
            case Message(stream, data):
                session = self.sessions.get(stream)
                if session is not None:
                    session.receive(data)
            case Opened(stream, headers):
                self._open(stream, headers.get(":path", ""))
            case Ended(stream):
                session = self.sessions.pop(stream, None)
                if session is not None:
                    session.close()
                    _LOG.info("a peer's stream has ended")
                with self._lock:
                    self._http2.finish(stream)

    def _open(self, stream: int, path: str) -> None:
        if path != f"/{wire.SERVICE}/{wire.METHOD}":
            with self._lock:
                self._http2.finish(stream, Status.UNIMPLEMENTED, f"there is no method {path} here")
            return
        with self._lock:
            self._http2.accept(stream)
        session = self.sessions[stream] = self._new_session(lambda data: self._send(stream, data))
        _LOG.info("a peer connected from %s", self._address)
        session.register()

    def _fault(self, code: Code) -> None:
        with self._lock:
            self._http2.goodbye(code)
        self.flush()

    def _over(self) -> None:
        self._since = 0.0
        for session in self.sessions.copy().values():
            session.close()
        self._transport.close()
        with self._sending:
            self._transport.release()
        self._ended(self)
