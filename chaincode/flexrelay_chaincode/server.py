"""The gRPC server that peers dial: one session, one reader and one writer a stream.

gRPC's threads cost a third less here than its asyncio server: contracts are synchronous, they run in threads anyway.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

import grpc

from flexrelay_chaincode import wire
from flexrelay_chaincode.config import ChaincodeConfig, ConfigError
from flexrelay_chaincode.metrics import Metrics
from flexrelay_chaincode.pool import Pool
from flexrelay_chaincode.program import Program, make_program
from flexrelay_chaincode.session import Session
from flexrelay_chaincode.tls import server_credentials

_LOG: Final = logging.getLogger(__name__)
_SWEEP_S: Final = 0.05
_REGISTER_S: Final = 5.0
"""A peer takes a registration within milliseconds, or never."""
_MAX_STREAMS: Final = 16
_CLOSE_S: Final = 1.0
_SLACK_S: Final = 5.0


class ChaincodeServer:
    """An async context manager: listens on entry; on exit it drains and closes.

    The peers' keepalive pings are taken at any rate, otherwise gRPC would end an idle stream ("too many pings").
    """

    def __init__(self, config: ChaincodeConfig, program: Program | None = None) -> None:
        self._config = config
        self._program = program or make_program(config)
        self._credentials = server_credentials(config) if config.tls else None
        self._sessions: dict[Session, Callable[[str], None]] = {}
        """Each session and how to end its stream, with a reason when it is not the usual one."""
        self._unregistered = False
        self._listening = False
        self._draining = False
        self._pool = Pool(config.threads, config.max_calls)
        self.metrics = Metrics()
        self.address = ""
        """host:port where it listens."""

    async def __aenter__(self) -> Self:
        config = self._config
        self._server = grpc.server(
            ThreadPoolExecutor(_MAX_STREAMS, thread_name_prefix="chaincode-stream"),
            maximum_concurrent_rpcs=_MAX_STREAMS,
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
                ("grpc.so_reuseport", 0),
            ],
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
        self._server.start()
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
        for end in self._sessions.copy().values():
            end("")
        await asyncio.to_thread(self._server.stop(_CLOSE_S).wait, 2 * _CLOSE_S)
        self._pool.close()

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
        self.metrics.streams = len(self._sessions)
        self.metrics.ready = sum(session.ready for session in self._sessions.copy())
        self.metrics.running = self._pool.taken
        return self.metrics.text()

    async def _drain(self) -> None:
        """New calls are refused; those that run may end, within their deadline."""
        self._draining = True
        for session in self._sessions.copy():
            session.draining = True
        end = time.monotonic() + self._config.call_timeout_s
        while self._pool.taken and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the calls end in threads

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for session, end in self._sessions.copy().items():
                session.expire()
                self._watch(session, end)

    def _connect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """One stream: gRPC sends what the iterator gives, in this thread, and nothing else writes to the stream."""
        outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        session = Session(self._config, self._program, self._pool, self.metrics, outgoing.put)
        session.draining = self._draining

        def end(reason: str) -> None:
            if reason:
                context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
                context.set_details(reason)
            self._sessions.pop(session, None)
            session.close()
            outgoing.put(None)

        if not context.add_callback(lambda: end("")):
            return iter(())
        self._sessions[session] = end
        _LOG.info("a peer connected from %s", context.peer())
        session.register()
        reader = Thread(target=_read, args=(requests, session, end), name="chaincode-reader", daemon=True)
        reader.start()
        return iter(outgoing.get, None)

    def _watch(self, session: Session, end: Callable[[str], None]) -> None:
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
            end(reason)


def _read(requests: Iterator[bytes], session: Session, end: Callable[[str], None]) -> None:
    """Until the peer or this server ends the stream."""
    try:
        for data in requests:
            session.receive(data)
    except grpc.RpcError:
        pass  # the stream was broken off
    except Exception as error:
        if type(error) is not Exception:  # gRPC raises a bare one at a stream's end
            _LOG.exception("the stream's reader failed")
    finally:
        end("")
        _LOG.info("a peer's stream has ended")
