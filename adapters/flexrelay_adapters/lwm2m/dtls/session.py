"""One DTLS session on memory buffers: datagrams in, messages out and the other way round. No socket, no clock."""

from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from flexrelay_adapters.lwm2m.coap.peer import Address, Peer
from flexrelay_adapters.lwm2m.dtls.records import Offer, split

_MOST: Final = 17_000


class SessionOver(Exception):
    """The session has ended or failed; it must be forgotten."""


class Session:
    """`send_datagram` gives bytes to the socket; `identity` is set by whoever looks up the PSK."""

    __slots__ = (
        "_connection",
        "_credential",
        "_send_datagram",
        "address",
        "expires_at",
        "identity",
        "offer",
        "peer",
        "seen",
        "started",
    )

    def __init__(
        self,
        connection: SSL.Connection,
        address: Address,
        send_datagram: Callable[[bytes], None],
        *,
        credential: str | None = None,
    ) -> None:
        """`credential` names the peer whatever it proves (a device's server); None: what it proves."""
        self._connection = connection
        self._send_datagram = send_datagram
        self.address = address
        self.identity = ""
        self.offer = Offer()
        self._credential = credential
        self.peer: Peer | None = None
        """The authenticated peer, once the handshake is done."""
        self.started = 0.0
        self.seen = 0.0
        self.expires_at: float | None = None
        """When the peer's certificate ends (UTC seconds)."""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages in a datagram; without one, go on with what OpenSSL has already. Answers of the handshake go
        out. Raises SessionOver."""
        connection = self._connection
        try:
            if data:
                connection.bio_write(data)
            if self.peer is None:
                self.shake()
                if self.peer is None:
                    return []
            messages = []
            while True:
                messages.append(connection.recv(_MOST))
                if not connection.pending():
                    break
        except SSL.WantReadError:
            return []
        except SSL.ZeroReturnError:
            raise SessionOver("closed by the peer") from None
        except SSL.Error as error:
            self.flush()  # an alert, where there is one
            raise SessionOver(_text(error)) from None
        return messages

    def shake(self) -> None:
        """Go on with the handshake; `peer` is there when it is done. Raises SSL.Error."""
        connection = self._connection
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self.flush()
            return
        self.flush()
        credential = self._credential or self.identity
        if not credential:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            credential = _common_name(certificate) if certificate is not None else ""
            if certificate is not None:
                self.expires_at = certificate.not_valid_after_utc.timestamp()
        if not credential:
            raise SSL.Error([("", "", "the certificate has no usable common name")])
        self.peer = Peer(self.address, credential, True, self.send)

    def send(self, data: bytes) -> None:
        """Encrypt one message and send it; nothing happens when the session is over."""
        try:
            self._connection.send(data)
            self._send_datagram(self._connection.bio_read(_MOST))
        except SSL.Error:
            pass

    def flush(self) -> None:
        """Send what OpenSSL has to say, one record a datagram."""
        try:
            while True:
                for record in split(self._connection.bio_read(_MOST)):
                    self._send_datagram(record)
        except SSL.Error:
            pass

    def retransmit(self) -> None:
        """To be called now and then during the handshake: OpenSSL's timer (RFC 6347 §4.2.4). Raises SessionOver."""
        try:
            timeout = self._connection.DTLSv1_get_timeout()
            if timeout is not None and timeout <= 0:
                self._connection.DTLSv1_handle_timeout()
                self.flush()
        except SSL.Error as error:
            raise SessionOver(_text(error)) from None

    def close(self) -> None:
        """Tell the peer that it is over."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass
        self.flush()

    @property
    def cipher(self) -> str:
        return self._connection.get_cipher_name() or ""


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return ""
    value = names[0].value
    name = value if isinstance(value, str) else ""
    return name if 0 < len(name) <= 128 and not name.startswith("udp:") else ""


def _text(error: SSL.Error) -> str:
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(reason[-1]) for reason in reasons) or type(error).__name__
