"""Plain CoAP over UDP: a peer for each address that the firewall admits."""

import logging
import time
from collections.abc import Callable
from typing import Final

from flexrelay_adapters.lwm2m.coap.peer import Address, Peer
from flexrelay_adapters.lwm2m.coap.udp import UdpEndpoint
from flexrelay_adapters.lwm2m.dtls.records import HANDSHAKE, REFUSAL, is_client_hello
from flexrelay_adapters.lwm2m.firewall import Firewall

log = logging.getLogger(__name__)

WARN_S: Final = 10.0
MAX_PEERS: Final = 50_000
PREFIX: Final = "udp:"


class PlainTransport:
    """`receive(peer, data)` is called for each datagram of an admitted address."""

    def __init__(self, firewall: Firewall, receive: Callable[[Peer, bytes], None], *, most: int = MAX_PEERS) -> None:
        self._firewall = firewall
        self._receive = receive
        self._most = most
        self._peers: dict[Address, Peer] = {}
        self._warned_at = -WARN_S
        self.endpoint: UdpEndpoint | None = None

    def open(self, host: str, port: int) -> None:
        """Raises OSError where the address cannot be bound."""
        self.endpoint = UdpEndpoint.open(host, port, self._datagram)

    def peer(self, address: Address) -> Peer:
        """The peer of an address; made when it is new."""
        peer = self._peers.get(address)
        if peer is None:
            if len(self._peers) >= self._most:
                del self._peers[next(iter(self._peers))]
            peer = Peer(address, PREFIX + address[0], False, lambda data: self._send(address, data))
            self._peers[address] = peer
        return peer

    def _datagram(self, address: Address, data: bytes) -> None:
        peer = self._peers.get(address)
        if peer is None:
            if not self._firewall.admits(address[0]):
                return
            peer = self.peer(address)
        if data and data[0] == HANDSHAKE and is_client_hello(data):
            self._refuse_hello(address)
            return
        self._receive(peer, data)

    def _refuse_hello(self, address: Address) -> None:
        """DTLS at the port without: told at once, or the device would try for minutes."""
        self._send(address, REFUSAL)
        now = time.monotonic()
        if now - self._warned_at >= WARN_S:
            self._warned_at = now
            log.warning("%s:%d speaks DTLS at the port of plain CoAP: give it the port of `coaps`", *address[:2])

    def _send(self, address: Address, data: bytes) -> None:
        if self.endpoint is not None:
            self.endpoint.send(address, data)

    def close(self) -> None:
        if self.endpoint is not None:
            self.endpoint.close()
            self.endpoint = None
