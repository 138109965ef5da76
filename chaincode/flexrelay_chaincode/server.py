"""The gRPC server that peers dial: one session a stream, one writer a stream."""

import asyncio
import logging
import time
from collections import deque
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from flexrelay_chaincode import wire
from flexrelay_chaincode.config import ChaincodeConfig, ConfigError
from flexrelay_chaincode.metrics import Metrics
from flexrelay_chaincode.pool import Pool
from flexrelay_chaincode.program import Program, make_program
from flexrelay_chaincode.session import Session
from flexrelay_chaincode.tls import server_credentials

_LOG: Final = logging.getLogger(__name__)
_SWEEP_S: Final = 0.05
_QUIET_S: Final = 30.0
_CLOSE_S: Final = 1.0


class ChaincodeServer:
    """An async context manager: listens on entry; on exit it drains and closes.

    The peers' keepalive pings are taken at any rate, otherwise gRPC would end an idle stream ("too many pings").
    """

    def __init__(self, config: ChaincodeConfig, program: Program | None = None) -> None:
        self._config = config
        self._program = program or make_program(config)
        self._credentials = server_credentials(config) if config.tls else None
        self._sessions: set[Session] = set()
        self._listening = False
        self._draining = False
        self._pool = Pool(config.threads, config.max_calls)
        self.metrics = Metrics()
        self.address = ""
        """host:port where it listens."""

    async def __aenter__(self) -> Self:
        config = self._config
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
                ("grpc.so_reuseport", 0),
            ]
        )
        handler: Any = grpc.stream_stream_rpc_method_handler(self._connect)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: handler}),)
        )
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(config.listen)
            else:
                port = self._server.add_secure_port(config.listen, self._credentials)
        except RuntimeError as error:
            self._pool.close()
            raise ConfigError(f"listen: cannot listen on {config.listen}: {error}") from None
        self.address = f"{config.listen.rpartition(':')[0]}:{port}"
        await self._server.start()
        self._sweeper = asyncio.create_task(self._sweep(), name="chaincode deadlines")
        self._listening = True
        _LOG.info("listening on %s for the peer of %s as %s", self.address, config.org, config.id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drain()
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._server.stop(_CLOSE_S)
        self._pool.close()

    @property
    def healthy(self) -> bool:
        """Whether a peer can call: it listens, does not stop, and has room."""
        return self._listening and not self._draining and self._pool.taken < self._pool.limit

    def text(self) -> str:
        """The metrics, in Prometheus' text form."""
        self.metrics.streams = len(self._sessions)
        self.metrics.ready = sum(session.ready for session in self._sessions)
        self.metrics.running = self._pool.taken
        return self.metrics.text()

    async def _drain(self) -> None:
        """New calls are refused; those that run may end, within their deadline."""
        self._draining = True
        for session in self._sessions:
            session.draining = True
        end = time.monotonic() + self._config.call_timeout_s
        while any(session.running for session in self._sessions) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the calls end in threads

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for session in list(self._sessions):
                session.expire()

    async def _connect(self, requests: Any, context: "grpc.aio.ServicerContext[Any, bytes]") -> None:
        """One stream, until the peer ends it."""
        peer = context.peer()
        _LOG.info("a peer connected from %s", peer)
        writer = _Writer(context)
        session = Session(self._config, self._program, self._pool, self.metrics, writer.send)
        session.draining = self._draining
        self._sessions.add(session)
        writing = asyncio.create_task(writer.run(), name="chaincode writer")
        watching = asyncio.create_task(self._watch(session), name="chaincode registration")
        try:
            session.register()
            while (data := await context.read()) is not grpc.aio.EOF:
                session.receive(data)
        finally:
            self._sessions.discard(session)
            session.close()
            writing.cancel()
            watching.cancel()
            await asyncio.gather(writing, watching, return_exceptions=True)
            _LOG.info("the peer at %s is gone", peer)

    async def _watch(self, session: Session) -> None:
        """A peer answers a wrong package id with silence: say what may be wrong."""
        await asyncio.sleep(_QUIET_S / 3)
        if not session.ready:
            _LOG.warning(
                "the peer does not take the registration as %s: another process is registered under this id, or the id "
                "is not the installed package's; compare with `peer lifecycle chaincode queryinstalled`",
                self._config.id,
            )
        await asyncio.sleep(_QUIET_S)
        if session.ready and not session.called:
            _LOG.warning(
                "registered as %s and not called for %g s: if calls hang at the peer, then this is not the committed "
                "package's id; compare with `peer lifecycle chaincode queryinstalled`",
                self._config.id,
                _QUIET_S,
            )


class _Writer:
    """The only one that writes to a stream. `send` is for any thread; at most one message a running call waits."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, bytes]") -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._woken = False

    def send(self, data: bytes) -> None:
        self._waiting.append(data)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                pass  # the loop is closed: the process ends

    async def run(self) -> None:
        waiting = self._waiting
        while True:
            while waiting:
                await self._context.write(waiting.popleft())
            self._woken = False
            self._wake.clear()
            if not waiting:
                await self._wake.wait()
