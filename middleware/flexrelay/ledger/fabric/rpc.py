"""Unary calls to one address: connects when needed, again after a loss, with deadlines; failures are gRPC's own."""

import asyncio
import socket
import ssl
from typing import Final

import grpc
import grpc.aio

from flexrelay.ledger.fabric.http2 import CallFailed, Connection, NotTaken
from flexrelay.ledger.fabric.pings import PINGS, Pings

_CONNECT_S: Final = 5.0
_FIRST_BACKOFF_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 2.0
_UNHEARD_MS: Final = 20_000
_NOT_TAKEN_S: Final = (0.0, 0.01, 0.05, 0.2, 0.5)
"""Pauses before a call that the server has not seen is made again; after them it has failed."""
_DETAILS: Final = "grpc-status-details-bin"


class Caller:
    """`address` is host:port, `name` the one in the server's certificate. Must be used from one event loop."""

    def __init__(
        self,
        address: str,
        name: str,
        context: ssl.SSLContext | None,
        max_message_bytes: int,
        pings: Pings = PINGS,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host.removeprefix("[").removesuffix("]"), int(port)
        self._name = name or self._host
        self._context = context
        self._max_message = max_message_bytes
        self._pings = pings
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._leaving: set[Connection] = set()
        self._backoff_s = 0.0
        self._not_before = 0.0
        self._why = ""
        self._closed = False

    async def call(self, path: str, request: bytes, timeout_s: float) -> bytes:
        """The answer's bytes. Raises grpc.aio.AioRpcError."""
        try:
            async with asyncio.timeout(timeout_s):
                for pause_s in _NOT_TAKEN_S:
                    try:
                        return await (self._connection or await self._connect()).unary(path, request)
                    except NotTaken:  # the server closes its connections now and then, or counts a call that is over
                        await asyncio.sleep(pause_s)
                return await (self._connection or await self._connect()).unary(path, request)
        except TimeoutError:
            raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s") from None
        except CallFailed as failure:
            raise _error(failure.code, failure.message, failure.details) from None

    def answered_since(self, instant: float) -> bool:
        """Whether a piece of an answer came since then (the loop's clock), over the connection that is in use."""
        return self._connection is not None and self._connection.pulse.last_answer > instant

    def retire(self) -> None:
        """New calls take a new connection; running ones end on theirs."""
        if self._connection is not None:
            self._connection.retire()

    def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in [*self._leaving, *([self._connection] if self._connection else [])]:
            connection.close()

    def trust(self, context: ssl.SSLContext | None) -> None:
        """What new connections use."""
        self._context = context
        self._not_before = 0.0

    async def _connect(self) -> Connection:
        """One attempt for all who wait. Raises CallFailed."""
        if self._connecting is None:
            loop = asyncio.get_running_loop()
            if self._closed or loop.time() < self._not_before:
                raise self._failed()
            self._connecting = asyncio.create_task(self._attempt(), name=f"connect-{self._host}:{self._port}")
            self._connecting.add_done_callback(self._attempted)
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                raise
            raise self._failed() from None

    async def _attempt(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(
                        self._name, self._context is not None, self._max_message, self._lost, self._pings
                    ),
                    self._host,
                    self._port,
                    ssl=self._context,
                    server_hostname=self._name if self._context is not None else None,
                )
                _tune(connection)
                await connection.ready
        except (OSError, TimeoutError, CallFailed) as error:
            self._why = str(error) or f"no answer within {_CONNECT_S:g} s"
            self._backoff_s = min(max(2 * self._backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
            self._not_before = loop.time() + self._backoff_s
            if connection is not None:
                connection.close()
            raise self._failed() from None
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()
            raise
        self._backoff_s = 0.0
        self._connection = connection
        return connection

    def _attempted(self, task: "asyncio.Task[Connection]") -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # those who waited have it

    def _lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._leaving = {item for item in self._leaving if item.busy} | {connection}

    def _failed(self) -> CallFailed:
        text = f"failed to connect to all addresses; {self._host}:{self._port}: {self._why or 'closed'}"
        return CallFailed(grpc.StatusCode.UNAVAILABLE, text)


def _tune(connection: Connection) -> None:
    """A peer that vanished with its host is noticed by what it does not acknowledge."""
    sock = connection.socket
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD_MS)


def _error(code: grpc.StatusCode, message: str, details: bytes = b"") -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata((_DETAILS, details)) if details else grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details=message)
