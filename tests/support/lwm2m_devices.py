"""Many LwM2M devices with plain sockets, each with an address of its own and one message under way (NSTART 1).

They send timestamped readings by Send, each again until it is answered, and register when they are not known.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress

import cbor2

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.message import Message, parse, path_options, serialise, uint

START = 1_700_000_000
AGAIN_S = 0.7


def address(number: int, network: int = 88) -> str:
    return f"127.0.{network + number // 250}.{number % 250 + 1}"


def free_ports(count: int) -> list[int]:
    """Different ports for UDP."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Device:
    """`acknowledged` are payloads whose 2.04 has come; `slowest_s` the longest wait for one."""

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.acknowledged: list[bytes] = []
        self.refused: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((address(number), 0))
        self._server = ("127.0.0.1", port)
        self._mid = random.randrange(65_536)
        self._seq = 0

    async def live(self, interval_s: float = 0.0) -> None:
        """Until cancelled."""
        try:
            await self._register()
            while True:
                await self.send_one()
                if interval_s:
                    await asyncio.sleep(interval_s)
        finally:
            self._socket.close()

    async def send_one(self) -> None:
        """The next reading, until it is answered."""
        self._seq += 1
        payload = cbor2.dumps(
            [{-3: START + self._seq, 0: "/3305/0/5800", 2: self.number}, {0: "/3305/0/5805", 2: self._seq}]
        )
        began = time.monotonic()
        while True:
            answer = await self._ask(path_options("/dp"), codes.SENML_CBOR, payload)
            if answer.code == codes.CHANGED:
                self.acknowledged.append(payload)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                return
            self.refused[codes.code_text(answer.code)] += 1
            if answer.code == codes.NOT_FOUND:
                await self._register()
            else:
                await asyncio.sleep(0.1)

    async def _register(self) -> None:
        options = [*path_options("/rd"), (codes.URI_QUERY, b"ep=m%d" % self.number), (codes.URI_QUERY, b"lwm2m=1.1")]
        await self._ask(options, codes.LINK, b"</1/0>,</3/0>,</3305/0>")

    async def _ask(self, options: list[tuple[int, bytes]], content_format: int, payload: bytes) -> Message:
        loop = asyncio.get_running_loop()
        self._mid = self._mid + 1 & 0xFFFF
        data = serialise(
            codes.CON, codes.POST, self._mid, b"t", [*options, uint(codes.CONTENT_FORMAT, content_format)], payload
        )
        while True:
            with suppress(OSError):
                self._socket.sendto(data, self._server)
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    while True:
                        try:
                            message = parse(await loop.sock_recv(self._socket, 2048))
                        except ConnectionError:  # nobody is there now
                            await asyncio.sleep(0.05)
                            continue
                        if message.kind == codes.ACK and message.mid == self._mid:
                            return message
