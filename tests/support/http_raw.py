"""HTTP/1.1 by hand: requests that a proper client would not send, and many of them for little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class RawHttp:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[RawHttp]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def post(self, path: str, token: str, body: bytes, announced: int | None = None) -> None:
        """With a Content-Length of `announced`, or the body's own."""
        size = len(body) if announced is None else announced
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {size}\r\n\r\n"
        await self.say(head.encode() + body)

    async def answer(self) -> tuple[int, Any]:
        """(Status, the body's JSON or None). Raises EOFError when the connection ends without one."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(head.split()[1])
            size = next(
                (int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0
            )
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError("the connection ended without an answer") from error
        try:
            return status, json.loads(body)
        except ValueError:
            return status, None
