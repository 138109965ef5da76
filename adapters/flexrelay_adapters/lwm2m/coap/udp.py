"""The UDP socket: what waits in it is taken in one go, and what the kernel had to drop is counted.

The event loop's own datagram transport takes one datagram a turn, which costs as much again as everything that is
done with it. So the socket is read directly.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flexrelay_adapters.lwm2m.coap.peer import Address

RECEIVE_BYTES: Final = 4 * 2**20
"""With the kernel's default a third of a burst of notifications is lost (measured)."""

MAX_DATAGRAM: Final = 16_384
"""A DTLS record or CoAP message is smaller; what is larger is cut off here and refused by the parser above."""

_AT_ONCE: Final = 128
_RCVBUFFORCE: Final = 33


class UdpEndpoint:
    """A bound socket that hands datagrams to `receive(address, data)`; `send` never waits and never raises."""

    def __init__(self, sock: socket.socket, receive: Callable[[Address, bytes], None]) -> None:
        self._sock = sock
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)
        self._open = True
        self._inode = _inode(sock)
        self.address: Final[Address] = sock.getsockname()[:2]
        self.received = 0
        self.unsent = 0
        """Datagrams that the kernel would not take; the other end asks again."""

    @classmethod
    def open(
        cls, host: str, port: int, receive: Callable[[Address, bytes], None], *, buffer: int = RECEIVE_BYTES
    ) -> "UdpEndpoint":
        """Raises OSError where the address cannot be bound."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            if buffer > sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF):
                try:
                    sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, buffer)  # beyond rmem_max, where permitted
                except OSError:
                    pass
            sock.bind((host, port))
            return cls(sock, receive)
        except BaseException:
            sock.close()
            raise

    @property
    def buffer_bytes(self) -> int:
        """The receive buffer that the kernel has granted (it doubles what is asked for its own books)."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def _read(self) -> None:
        receive, recvfrom = self._receive, self._sock.recvfrom
        for _ in range(_AT_ONCE):
            try:
                data, address = recvfrom(MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    continue  # an ICMP message about something sent: that peer is not there
                raise
            self.received += 1
            receive(address, data)
            if not self._open:
                return

    def send(self, address: Address, data: bytes) -> None:
        if self._open:
            try:
                self._sock.sendto(data, address)
            except OSError:
                self.unsent += 1

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel threw away because nobody read in time; -1 where it does not tell."""
        for table in ("/proc/self/net/udp", "/proc/self/net/udp6"):
            try:
                lines = Path(table).read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                fields = line.split()
                if fields[9] == self._inode:
                    return int(fields[-1])
        return -1

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()


def _inode(sock: socket.socket) -> str:
    """The socket's number in the kernel's tables, "" where there are none."""
    try:
        return str(Path(f"/proc/self/fd/{sock.fileno()}").readlink()).removeprefix("socket:[").rstrip("]")
    except OSError:
        return ""
