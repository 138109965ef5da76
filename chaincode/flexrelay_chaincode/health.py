"""/healthz and /metrics for the process that runs the chaincode, over the little HTTP that both need."""

import asyncio
import logging
from typing import Final, Protocol

_LOG: Final = logging.getLogger(__name__)
_MAX_REQUEST: Final = 8_192
_TIMEOUT_S: Final = 5.0


class Watched(Protocol):
    @property
    def healthy(self) -> bool: ...

    def text(self) -> str: ...


async def serve_health(host: str, port: int, watched: Watched) -> asyncio.Server:
    """Answers GET /healthz (200 or 503) and GET /metrics; one request a connection. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = respond(head, watched)
                body = text.encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that says nothing sensible gets no answer
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=_MAX_REQUEST)


def respond(head: bytes, watched: Watched) -> tuple[str, str]:
    """(status line, text) for the head of a request."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return "405 Method Not Allowed", ""
    match path:
        case b"/healthz":
            return ("200 OK", "ok\n") if watched.healthy else ("503 Service Unavailable", "not serving\n")
        case b"/metrics":
            return "200 OK", watched.text()
        case _:
            return "404 Not Found", ""
