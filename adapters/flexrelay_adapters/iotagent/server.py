"""An HTTP server for the length of a block, on what `Listen` says."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette

from flexrelay_adapters.iotagent.config import Listen

STOP_S = 2


@asynccontextmanager
async def serving(application: Starlette, listen: Listen, name: str, field: str) -> AsyncIterator[int]:
    """Gives the port (a free one when configured as 0). Raises OSError naming the field."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((listen.host, listen.port))
            listener.listen(512)
        except OSError as error:
            raise OSError(f"{name}.{field}: {listen.host}:{listen.port} cannot be used: {error.strerror}") from None
        config = uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
            limit_concurrency=4096,
        )
        if listen.tls is not None:
            config.load()
            config.ssl = _context(listen)
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name=f"{name} {field}")
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await task


def _context(listen: Listen) -> ssl.SSLContext:
    assert listen.tls is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listen.tls.certificate, listen.tls.key)
    if listen.tls.ca is not None:
        context.load_verify_locations(listen.tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The application handles signals, not its HTTP server."""
        yield
