"""Listens for peers: a connection for each, and a thread that watches deadlines."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from flexrelay_chaincode.config import ChaincodeConfig, ConfigError, split_address
from flexrelay_chaincode.connection import Connection
from flexrelay_chaincode.metrics import Metrics
from flexrelay_chaincode.pool import Pool
from flexrelay_chaincode.program import Program, make_program
from flexrelay_chaincode.session import Session
from flexrelay_chaincode.tls import server_context

_LOG: Final = logging.getLogger(__name__)
_SWEEP_S: Final = 0.05
_REGISTER_S: Final = 5.0
"""A peer takes a registration within milliseconds, or never."""
_MAX_CONNECTIONS: Final = 16
_CLOSE_S: Final = 1.0
_SLACK_S: Final = 5.0


class ChaincodeServer:
    """An async context manager: listens on entry; on exit it drains and closes."""

    def __init__(self, config: ChaincodeConfig, program: Program | None = None) -> None:
        self._config = config
        self._program = program or make_program(config)
        self._context = server_context(config) if config.tls else None
        self._connections: set[Connection] = set()
        self._unregistered = False
        self._listening = False
        self._draining = False
        self._stopped = threading.Event()
        self._pool = Pool(config.threads, config.max_calls)
        self.metrics = Metrics()
        self.address = ""
        """host:port where it listens."""

    async def __aenter__(self) -> Self:
        config = self._config
        host, port = split_address(config.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(f"listen: cannot listen on {config.listen}: {error.strerror or error}") from None
        self.address = f"{config.listen.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        self._threads = [
            threading.Thread(target=self._accept, name="chaincode-accept", daemon=True),
            threading.Thread(target=self._sweep, name="chaincode-deadlines", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._listening = True
        _LOG.info("listening on %s for the peer of %s as %s", self.address, config.org, config.id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drain()
        self._stopped.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        except OSError:
            pass  # some systems do not know this of a listening socket: closing it is enough there
        self._socket.close()
        for connection in self._connections.copy():
            await asyncio.to_thread(connection.close)
        end = time.monotonic() + _CLOSE_S
        while self._connections and time.monotonic() < end:  # noqa: ASYNC110 (they end in threads)
            await asyncio.sleep(0.01)

    @property
    def healthy(self) -> bool:
        """Whether a peer can call: it listens, does not stop, the last peer took the registration, and not every thread
        hangs in a contract.

        Being busy is not being ill: an overloaded process that is restarted for it helps nobody.
        """
        hanging = self._pool.stalled_s > 2 * self._config.call_timeout_s + _SLACK_S
        return self._listening and not self._draining and not self._unregistered and not hanging

    def text(self) -> str:
        """The metrics, in Prometheus' text form."""
        sessions = self._sessions()
        self.metrics.streams = len(sessions)
        self.metrics.ready = sum(session.ready for session in sessions)
        self.metrics.running = self._pool.taken
        return self.metrics.text()

    def _sessions(self) -> list[Session]:
        return [session for connection in self._connections.copy() for session in connection.sessions.copy().values()]

    async def _drain(self) -> None:
        """New calls are refused; those that run may end, within their deadline."""
        self._draining = True
        for session in self._sessions():
            session.draining = True
        end = time.monotonic() + self._config.call_timeout_s
        while self._pool.taken and time.monotonic() < end:  # noqa: ASYNC110 (the calls end in threads)
            await asyncio.sleep(0.01)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, address = self._socket.accept()
            except OSError as error:
                if self._stopped.is_set():
                    return
                _LOG.warning("a connection could not be accepted: %s", error)
                time.sleep(_SWEEP_S)  # out of file descriptors, most likely: not a busy loop
                continue
            if len(self._connections) >= _MAX_CONNECTIONS:
                _LOG.warning("refused a connection from %s: there are %d already", address[0], _MAX_CONNECTIONS)
                sock.close()
                continue
            connection = Connection(
                sock,
                f"{address[0]}:{address[1]}",
                self._context,
                self._config.max_message_bytes,
                self._pool,
                self._session,
                self._connections.discard,
            )
            self._connections.add(connection)
            connection.start()

    def _session(self, send: Callable[[bytes], None]) -> Session:
        session = Session(self._config, self._program, self._pool, self.metrics, send)
        session.draining = self._draining
        return session

    def _sweep(self) -> None:
        while not self._stopped.wait(_SWEEP_S):
            for connection in self._connections.copy():
                connection.look_after()
                for stream, session in connection.sessions.copy().items():
                    session.expire()
                    self._watch(connection, stream, session)

    def _watch(self, connection: Connection, stream: int, session: Session) -> None:
        """A peer answers a wrong package id with silence, and calls hang: the end of the stream makes them fail."""
        if session.ready:
            self._unregistered = False
        elif time.monotonic() - session.started > _REGISTER_S:
            self._unregistered = True
            reason = (
                f"the peer does not take the registration as {self._config.id}: this is not the id of the package that "
                "it dials for (see `peer lifecycle chaincode queryinstalled`), or another stream is registered under it"
            )
            _LOG.error(reason)
            connection.end(stream, reason)
