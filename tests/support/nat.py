"""A network address translator for UDP: what a server sees of a client is another port after each `rebind`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

Address = tuple[str, int]


class _Side(asyncio.DatagramProtocol):
    def __init__(self, take: Any) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr[:2])

    def error_received(self, exc: Exception) -> None:  # nobody is there now: datagrams get lost
        pass


class Nat:
    """For one client behind it. `port` is where the client sends; `dropped` counts what came for a former binding."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._client: Address | None = None
        self._inner: asyncio.DatagramTransport | None = None
        self._outer: asyncio.DatagramTransport | None = None
        self._former: list[asyncio.DatagramTransport] = []
        self.port = 0
        self.bindings: list[int] = []
        self.dropped = 0

    @classmethod
    @asynccontextmanager
    async def before(cls, host: str, port: int) -> AsyncIterator[Nat]:
        nat = cls((host, port))
        loop = asyncio.get_running_loop()
        nat._inner, _ = await loop.create_datagram_endpoint(lambda: _Side(nat._out), local_addr=("127.0.0.1", 0))
        nat.port = nat._inner.get_extra_info("sockname")[1]
        try:
            await nat.rebind()
            yield nat
        finally:
            for transport in (nat._inner, nat._outer, *nat._former):
                if transport is not None:
                    transport.close()

    async def rebind(self) -> None:
        """The client has another address from now on; what comes to the former one is lost."""
        loop = asyncio.get_running_loop()
        former = self._outer
        binding = len(self.bindings)
        self._outer, _ = await loop.create_datagram_endpoint(
            lambda: _Side(lambda data, sender: self._back(binding, data)), local_addr=("127.0.0.1", 0)
        )
        self.bindings.append(self._outer.get_extra_info("sockname")[1])
        if former is not None:
            self._former.append(former)  # open: so that nobody else gets its port

    def _out(self, data: bytes, sender: Address) -> None:
        self._client = sender
        if self._outer is not None:
            self._outer.sendto(data, self._server)

    def _back(self, binding: int, data: bytes) -> None:
        if binding != len(self.bindings) - 1:
            self.dropped += 1
        elif self._client is not None and self._inner is not None:
            self._inner.sendto(data, self._client)
