"""One connection to a hub: lines in and out."""

import asyncio

from flexrelay_acme_hub.config import AcmeHubConfig

_HEADROOM = 64 * 1024
"""Lines beyond the limit still arrive, so that they become dead letters; beyond this too, the connection ends."""


class LinkLost(ConnectionError):
    """The connection is over, or the hub turned us away."""


class Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, config: AcmeHubConfig, token: str, greeting: str = "HELLO") -> "Link":
        """Connect and say HELLO, or ASK for a question. Raises LinkLost."""
        where = f"{config.host}:{config.port}"
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(
                    config.host, config.port, limit=config.max_line_bytes + _HEADROOM
                )
                link = cls(reader, writer)
                link.say(f"{greeting} {token}")
                answer = await link.line()
        except (OSError, TimeoutError) as error:
            raise LinkLost(f"cannot connect to {where}: {error or 'no answer'}") from error
        if answer != b"WELCOME":
            await link.close()
            raise LinkLost(f"the hub at {where} denies the token; check `token`")
        return link

    async def line(self) -> bytes:
        """Raises LinkLost at the end."""
        try:
            return (await self._reader.readuntil(b"\n"))[:-1]
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise LinkLost(f"the hub is gone: {error}") from error

    async def lines(self, most: int) -> list[bytes]:
        """Wait for one line, then take what is there already."""
        lines = [await self.line()]
        while len(lines) < most and b"\n" in self._waiting():
            lines.append(await self.line())
        return lines

    def _waiting(self) -> bytearray:
        return self._reader._buffer  # type: ignore[attr-defined,no-any-return]  # asyncio has no other way to look

    def say(self, line: str) -> None:
        if self._writer.is_closing():
            raise LinkLost("the hub is gone")
        self._writer.write(line.encode() + b"\n")

    async def flush(self) -> None:
        try:
            await self._writer.drain()
        except OSError as error:
            raise LinkLost(f"the hub is gone: {error}") from error

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # over either way
