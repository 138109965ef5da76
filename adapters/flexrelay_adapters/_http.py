"""The HTTP side that several adapters share: a small server (TLS, client certificates, bounds) and the intake.

What a handler does: authenticate, `body = await body_of(request, …)`, `await intake.put(frames, codec)`, answer. The
intake returns only when the sink has, so a 2xx is the promise that the frame is on disk. When as much waits as is
allowed, or the gateway cannot store, the answer is 503 with Retry-After: the protocol's own backpressure.

Needs the extra `server` (starlette, uvicorn).
"""

import asyncio
import hashlib
import logging
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Self

import uvicorn
from cryptography import x509
from cryptography.x509.oid import NameOID
from pydantic import Field, model_validator
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from flexrelay_sdk import Codec, Frame, Receipt, Sink, SinkUnavailable
from flexrelay_sdk.config import Section, below

log = logging.getLogger(__name__)

_PEER: Final = "client_certificate"
_HEAD_S: Final = 15.0
"""For the head of a request, from the connection or the first byte after another request."""
_STOP_S: Final = 2
"""How long requests that are under way may take to be answered at the end."""


class HttpTls(Section):
    """The server's certificate (PEM files). With `client_ca` devices may show a certificate of that authority, with
    `client_required` they must."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = False

    @model_validator(mode="after")
    def _authority(self) -> Self:
        if self.client_required and self.client_ca is None:
            raise ValueError("client_required needs client_ca: whose certificates are good?")
        return self

    def within(self, folder: Path) -> Self:
        """The same with its files relative to `folder`."""
        files = {name: below(folder, getattr(self, name)) for name in ("certificate", "key", "client_ca")}
        return self.model_copy(update=files)


class Listen(Section):
    """Where an adapter listens, and its bounds. Port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)]
    tls: HttpTls | None = None
    max_body_bytes: Annotated[int, Field(ge=64, le=2**26)] = 2**20
    body_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """A body that takes longer is given up (408)."""
    max_connections: Annotated[int, Field(ge=1, le=65535)] = 2000
    max_pending: Annotated[int, Field(ge=1, le=65535)] = 4000
    """Frames that wait for the sink; beyond it the answer is 503."""
    max_pending_bytes: Annotated[int, Field(ge=2**16, le=2**30)] = 32 * 2**20
    """The same in bytes."""
    batch: Annotated[int, Field(ge=1, le=65535)] = 2000
    """Frames given to the sink at once."""
    retry_after_s: Annotated[int, Field(ge=1, le=3600)] = 2

    def check_files(self, name: str) -> None:
        """Raises ValueError naming the field whose file is not there."""
        for field in ("certificate", "key", "client_ca"):
            path = getattr(self.tls, field, None)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}.tls.{field}: there is no file {path}")


class Refusal(Exception):
    """A request that is turned away: status and why; `serving` answers with it."""

    def __init__(self, status: int, reason: str, detail: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers or {}


def refused(refusal: Refusal) -> Response:
    body = {"error": refusal.reason, "detail": refusal.detail}
    return JSONResponse(body, refusal.status, headers=refusal.headers)


class Busy(Refusal):
    """503 with Retry-After: nothing was stored, send it again."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(503, "busy", detail, {"retry-after": str(retry_after_s)})


class _Waiting:
    """Frames of one request."""

    __slots__ = ("bytes", "codec", "done", "frames")

    def __init__(self, frames: Sequence[Frame], codec: Codec, done: "asyncio.Future[Sequence[Receipt]]") -> None:
        self.frames = frames
        self.codec = codec
        self.done = done
        self.bytes = sum(len(frame.payload) for frame in frames)


class Room:
    """What one body takes while it is read. `patience` is the timeout that it is read under."""

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.size = 0
        self.given_up = False
        self.patience: asyncio.Timeout | None = None

    def give_up(self) -> None:
        self.given_up = True
        if self.patience is not None and not self.patience.expired():
            self.patience.reschedule(asyncio.get_running_loop().time())


class Intake:
    """Frames of many requests into one sink: what waits while a batch is stored goes into the next one.

    `run(sink)` is the adapter's; what the sink raises besides SinkUnavailable ends it.
    """

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._open = False
        self._rooms: set[Room] = set()
        self._reserved = 0
        self._senders: dict[str, int] = {}
        self.frames = 0
        self.bytes = 0
        """What waits, the batch in the sink included."""

    @contextmanager
    def room(self, sender: str = "") -> Iterator["Room"]:
        """Room for a body while it is read; it counts what has come, not what is announced. Raises Busy."""
        if not self._open:
            raise Busy("the gateway is not taking readings now", self._listen.retry_after_s)
        if self.frames >= self._listen.max_pending:
            raise Busy("as much waits as may", self._listen.retry_after_s)
        room = Room(sender)
        self._rooms.add(room)
        try:
            yield room
        finally:
            self._rooms.discard(room)
            self.take_back(room)

    def grow(self, room: "Room", size: int) -> None:
        """One sender's bodies may take a quarter of it all (always one); where there is no room the largest body gives
        way to the smaller ones, so that many slow senders do not shut the others out. Raises Busy."""
        if room.given_up:  # its next piece was there before it was told
            raise Busy("it was given up for smaller ones", self._listen.retry_after_s)
        most = self._listen.max_pending_bytes
        others = self._senders.get(room.sender, 0) - room.size
        if others and (others + room.size + size) * 4 > most:
            raise Busy("as much of this sender's is under way as may", self._listen.retry_after_s)
        while self.bytes + self._reserved + size > most:
            largest = max(self._rooms, key=lambda each: each.size)
            if largest.size <= room.size + size:
                raise Busy("as much waits as may", self._listen.retry_after_s)
            self.take_back(largest)
            self._rooms.discard(largest)
            largest.give_up()
        room.size += size
        self._reserved += size
        self._senders[room.sender] = self._senders.get(room.sender, 0) + size

    def take_back(self, room: "Room") -> None:
        self._reserved -= room.size
        left = self._senders.get(room.sender, 0) - room.size
        self._senders.pop(room.sender, None)
        if left:
            self._senders[room.sender] = left
        room.size = 0

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        """One receipt a frame, once all are on disk. Raises Busy: none of them may be told as taken.

        More frames than `max_pending` are taken when nothing else waits.
        """
        if not frames:
            return []
        waiting = _Waiting(frames, codec, asyncio.get_running_loop().create_future())
        full = self.frames + len(frames) > self._listen.max_pending
        if not self._open or (self.frames and (full or self.bytes + waiting.bytes > self._listen.max_pending_bytes)):
            raise Busy("as much waits as may", self._listen.retry_after_s)
        self.frames += len(frames)
        self.bytes += waiting.bytes
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def run(self, sink: Sink) -> None:
        """Feed the sink until cancelled. What still waits then is answered with Busy."""
        self._open = True
        taken: list[_Waiting] = []
        try:
            while True:
                await self._arrived.wait()
                taken = self._next()
                if not taken:
                    self._arrived.clear()
                    continue
                await self._store(taken, sink)
                taken = []
        finally:
            self._open = False
            for waiting in (*taken, *self._queue):
                self._end(waiting, Busy("the gateway is stopping", self._listen.retry_after_s))
            self._queue.clear()

    def _next(self) -> list[_Waiting]:
        """What waits first, as far as it goes to one codec."""
        taken: list[_Waiting] = []
        count = 0
        while self._queue and (not taken or self._queue[0].codec is taken[0].codec):
            count += len(self._queue[0].frames)
            if taken and count > self._listen.batch:
                break
            taken.append(self._queue.popleft())
        return taken

    async def _store(self, taken: Sequence[_Waiting], sink: Sink) -> None:
        frames = [frame for waiting in taken for frame in waiting.frames]
        try:
            receipts = await sink.put(frames, taken[0].codec)
        except SinkUnavailable as error:
            log.warning("the gateway cannot store (%s); whoever sent it is told to send again", error)
            for waiting in taken:
                self._end(waiting, Busy("the gateway cannot store now", self._listen.retry_after_s))
            return
        start = 0
        for waiting in taken:
            self._end(waiting, receipts[start : start + len(waiting.frames)])
            start += len(waiting.frames)

    def _end(self, waiting: _Waiting, outcome: Sequence[Receipt] | Busy) -> None:
        self.frames -= len(waiting.frames)
        self.bytes -= waiting.bytes
        if waiting.done.done():  # its request is gone; what is stored is stored
            return
        if isinstance(outcome, Busy):
            waiting.done.set_exception(outcome)
        else:
            waiting.done.set_result(outcome)


async def body_of(request: Request, listen: Listen, intake: Intake, sender: str = "") -> bytes:
    """The whole body of an authenticated `sender`. Raises Refusal: 413 beyond the bound, 408 when it takes too long,
    503 when there is no room."""
    most = listen.max_body_bytes
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and len(told) < 16 and int(told) > most:
        raise Refusal(413, "oversized", f"at most {most} bytes are taken")
    body = bytearray()
    with intake.room(sender) as room:
        try:
            async with asyncio.timeout(listen.body_timeout_s) as room.patience:
                async for chunk in request.stream():
                    if len(body) + len(chunk) > most:
                        raise Refusal(413, "oversized", f"at most {most} bytes are taken")
                    intake.grow(room, len(chunk))
                    body += chunk
        except TimeoutError:
            if room.given_up:
                raise Busy("it was given up for smaller ones", listen.retry_after_s) from None
            raise Refusal(408, "too_slow", f"the body took more than {listen.body_timeout_s:g} s") from None
        except ClientDisconnect:
            raise Refusal(400, "torn", "the body ended early") from None
    return bytes(body)


def bearer_of(request: Request) -> str | None:
    """The token of `Authorization: Bearer …`, None when there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


class ClientCertificate:
    """A certificate that TLS has verified against `client_ca`."""

    def __init__(self, der: bytes) -> None:
        self.fingerprint = hashlib.sha256(der).hexdigest()
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        self.ends_at = certificate.not_valid_after_utc
        """A connection can outlive its certificate."""
        self.common_name = str(names[0].value) if len(names) == 1 else ""


def certificate_of(request: Request) -> ClientCertificate | None:
    """What the client has shown in the TLS handshake."""
    found: ClientCertificate | None = getattr(request.state, _PEER, None)
    return found


@asynccontextmanager
async def serving(
    listen: Listen, name: str, *, routes: Sequence[BaseRoute] = (), app: ASGIApp | None = None
) -> AsyncIterator[int]:
    """Serve until the block ends; gives the port. Requests that are under way then get `_STOP_S` to be answered.

    A handler's Refusal becomes its answer. Raises OSError when the port or a file of `tls` cannot be used.
    """
    context = _context(listen.tls, name) if listen.tls is not None else None
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((listen.host, listen.port))
            listener.listen(256)
        except OSError as error:
            raise OSError(f"{name}: {listen.host}:{listen.port} cannot be used: {error.strerror}") from None
        config = uvicorn.Config(
            app or Starlette(routes=list(routes), exception_handlers={Refusal: _on_refusal}),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=listen.max_connections,
            timeout_graceful_shutdown=_STOP_S,
            ssl_context_factory=(lambda *_: context) if context is not None else None,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name=f"{name} http")
        try:
            while not server.started and not task.done():  # noqa: ASYNC110  # uvicorn tells it by a flag only
                await asyncio.sleep(0.005)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await asyncio.shield(task)


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error)


def _context(tls: HttpTls, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    files = f"certificate {tls.certificate} with key {tls.key}"
    try:
        context.load_cert_chain(str(tls.certificate), str(tls.key))
        if tls.client_ca is not None:
            files = f"client_ca {tls.client_ca}"
            context.load_verify_locations(str(tls.client_ca))
            context.verify_mode = ssl.CERT_REQUIRED if tls.client_required else ssl.CERT_OPTIONAL
    except OSError as error:  # ssl.SSLError is one
        raise OSError(f"{name}: {files} cannot be used: {error.strerror or error}") from None
    return context


class _Protocol(H11Protocol):
    """uvicorn's, which also passes on the certificate that the client has shown, and hangs up on who takes too long for
    the head of a request."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        der = secured.getpeercert(binary_form=True) if secured is not None else None
        if der:
            self.app_state = {**self.app_state, _PEER: ClientCertificate(der)}
        self._head = self.loop.call_later(_HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_head()
        elif self._head is None:
            self._head = self.loop.call_later(_HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head()
        super().connection_lost(exc)

    def _cancel_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The application handles signals, not its HTTP servers."""
        yield
