"""A small HTTP client for simulated devices: one kept connection, one request under way.

It shares nothing with the adapters' servers but the protocol library (h11, which uvicorn needs anyway: extra `server`).
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple, Self

import h11
from pydantic import Field, SecretStr

from flexrelay_sdk.config import AdapterConfig, below
from flexrelay_sdk.simulation import SimulatorStats

log = logging.getLogger(__name__)

MAX_BODY: Final = 2**22
_READ: Final = 2**16
_LATER: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


class DeviceGateway(AdapterConfig):
    """Where simulated devices push to."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    ca: Path | None = None
    """Certificates (PEM) that the devices trust; without it there is no TLS."""
    token: SecretStr
    backoff_s: Annotated[float, Field(gt=0, le=60)] = 1.0

    def placed(self, folder: Path) -> Self:
        """With `ca` as it is meant in a configuration of `folder`. Raises ValueError that begins with `ca`."""
        ca = below(folder, self.ca)
        if ca is not None and not ca.is_file():
            raise ValueError(f"ca: there is no file {ca}")
        return self.model_copy(update={"ca": ca})


class Reply(NamedTuple):
    """`headers` by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Request(NamedTuple):
    """`target` is the path with its query."""

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


class HttpClient:
    """One device's, to one gateway. The token goes along as `Authorization: Bearer`, with `device`, if it is given, in
    place of `{device}`. `stats` counts the tries that got no answer. Raises OSError or ssl.SSLError when `ca` cannot be
    read."""

    def __init__(self, gateway: DeviceGateway, stats: SimulatorStats, device: str = "") -> None:
        self._host, self._port, self._backoff_s = gateway.host, gateway.port, gateway.backoff_s
        self._stats = stats
        name = f"[{gateway.host}]" if ":" in gateway.host else gateway.host
        token = gateway.token.get_secret_value()
        token = token.replace("{device}", device) if device else token
        self._headers = {"host": f"{name}:{gateway.port}", "authorization": f"Bearer {token}"}
        self._tls = ssl.create_default_context(cafile=gateway.ca) if gateway.ca is not None else None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._state = h11.Connection(h11.CLIENT)
        self.connections = 0

    async def _request(self, request: Request, timeout_s: float) -> Reply:
        """Raises ConnectionError when there is no answer: whether the server has acted is not known then."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request)
        except TimeoutError:
            self.close()
            raise ConnectionError(f"{self._host}:{self._port} does not answer within {timeout_s:g} s") from None
        except (OSError, EOFError, h11.ProtocolError) as error:
            self.close()
            raise ConnectionError(f"{self._host}:{self._port}: {error or type(error).__name__}") from None
        except BaseException:
            self.close()  # an answer may still come: it must not be taken for the next one's
            raise

    async def insist(self, request: Request, *, timeout_s: float = 30.0, known: Sequence[int] = ()) -> Reply:
        """The same request until its answer is none of "later".

        Raises ConnectionError for an answer that stays a no (but for the `known` ones).
        """
        while True:
            try:
                reply = await self._request(request, timeout_s)
            except ConnectionError as error:
                log.info("%s; again soon", error)
                self._stats.reconnects += 1
            else:
                if reply.status < 300 or reply.status in known:
                    return reply
                if reply.status not in _LATER:
                    said = reply.body[:200].decode(errors="replace")
                    raise ConnectionError(
                        f"{self._host}:{self._port} answers {request.method} {request.target} with {reply.status} "
                        f"{said}; check token and paths"
                    )
            await asyncio.sleep(self._backoff_s)

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            with suppress(RuntimeError):  # the loop is closed already
                writer.close()

    async def _exchange(self, request: Request) -> Reply:
        method, target, body, headers = request
        reader, writer = await self._connection()
        whole = {**self._headers, "content-length": str(len(body)), **headers}
        out = self._state.send(h11.Request(method=method, target=target, headers=list(whole.items()))) or b""
        if body:
            out += self._state.send(h11.Data(data=body)) or b""
        writer.write(out + (self._state.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        reply = await self._reply(reader)
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        else:
            self.close()
        return reply

    async def _reply(self, reader: asyncio.StreamReader) -> Reply:
        status, headers, data = 0, {}, bytearray()
        while True:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                self._state.receive_data(await reader.read(_READ))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                data += event.data
                if len(data) > MAX_BODY:
                    raise EOFError(f"an answer of more than {MAX_BODY} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return Reply(status, headers, bytes(data))
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise EOFError("hung up")

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is not None and self._writer is not None and not self._reader.at_eof():
            return self._reader, self._writer
        self.close()
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        self._state = h11.Connection(h11.CLIENT)
        self.connections += 1
        return self._reader, self._writer
