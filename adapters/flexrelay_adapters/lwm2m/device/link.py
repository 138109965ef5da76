"""How a device reaches its server: a UDP socket, with a DTLS session on it where there are credentials."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from OpenSSL import SSL

from flexrelay_adapters.lwm2m.coap.peer import Address, Peer
from flexrelay_adapters.lwm2m.coap.udp import UdpEndpoint
from flexrelay_adapters.lwm2m.dtls.context import client_context
from flexrelay_adapters.lwm2m.dtls.session import Session, SessionOver

HANDSHAKE_S = 20.0


@dataclass(frozen=True, slots=True)
class Security:
    """PSK (`identity`, `key`) or X.509 (PEM files); `ca` is what the server's certificate must come from."""

    identity: str | None = None
    key: bytes | None = None
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


class Link:
    """`receive(peer, message)` for each message of the server."""

    def __init__(self, server: Address, receive: Callable[[Peer, bytes], None]) -> None:
        self._server = server
        self._receive = receive
        self._endpoint: UdpEndpoint | None = None
        self._session: Session | None = None
        self._kept: object = None
        self.peer: Peer | None = None

    @property
    def address(self) -> Address:
        return self._endpoint.address if self._endpoint is not None else ("", 0)

    async def open(self, local: str, security: Security | None) -> Peer:
        """The server as a peer. Raises ConnectionError when the handshake fails, OSError for the socket."""
        self._endpoint = UdpEndpoint.open(local, 0, self._datagram, buffer=256 * 1024)
        if security is None:
            self.peer = Peer(self._server, "server", False, self._send)
            return self.peer
        context, self._kept = client_context(
            security.identity, security.key, security.ca, security.certificate, security.private_key
        )
        connection = SSL.Connection(context, None)
        connection.set_ciphertext_mtu(1280)
        connection.set_connect_state()
        session = self._session = Session(connection, self._server, self._send, credential="server")
        try:
            session.feed(b"")
            async with asyncio.timeout(HANDSHAKE_S):
                while session.peer is None:
                    await asyncio.sleep(0.02)
                    if self._session is not session:
                        raise ConnectionError("the server refuses the session")
                    session.retransmit()
        except (SessionOver, TimeoutError) as error:
            raise ConnectionError(f"no session with {self._server[0]}:{self._server[1]}: {error}") from None
        self.peer = session.peer
        return session.peer

    def _datagram(self, address: Address, data: bytes) -> None:
        if self._session is None:
            if self.peer is not None and address[:2] == self._server:
                self._receive(self.peer, data)
            return
        try:
            messages = self._session.feed(data)
        except SessionOver:
            self._session = None
            return
        if self._session.peer is not None:
            for message in messages:
                self._receive(self._session.peer, message)

    def _send(self, data: bytes) -> None:
        if self._endpoint is not None:
            self._endpoint.send(self._server, data)

    def close(self, *, say: bool = True) -> None:
        """`say`: tell the server that the session is over."""
        if self._session is not None and say:
            self._session.close()
        self._session = None
        self.peer = None
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None
