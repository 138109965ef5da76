"""CoAP over DTLS: sessions by address, a cookie before anything is kept for a stranger, bounds on all of it."""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.message import MessageError, parse, serialise
from flexrelay_adapters.lwm2m.coap.peer import Address, Peer
from flexrelay_adapters.lwm2m.coap.udp import UdpEndpoint
from flexrelay_adapters.lwm2m.config import CoapsConfig
from flexrelay_adapters.lwm2m.dtls.context import server_context
from flexrelay_adapters.lwm2m.dtls.keys import KeyFile
from flexrelay_adapters.lwm2m.dtls.records import CHANGE_CIPHER, HANDSHAKE, is_client_hello, offer_of
from flexrelay_adapters.lwm2m.dtls.session import Session, SessionOver

log = logging.getLogger(__name__)

TICK_S: Final = 0.25
HANDSHAKE_S: Final = 15.0
COMPLAIN_S: Final = 10.0
OF_ONE: Final = 2
"""Sessions of one credential that are kept: a device whose address changes makes a new one each time, and never ends
the former."""
COOKIE_S: Final = 60.0
"""A cookie counts for one to two of these."""


class DtlsTransport:
    """`receive(peer, message)` for each message of an authenticated peer; `gone(peer)` when its session is over."""

    def __init__(
        self, config: CoapsConfig, receive: Callable[[Peer, bytes], None], gone: Callable[[Peer], None]
    ) -> None:
        """Raises ValueError where keys or certificates cannot be read."""
        self._config = config
        self._receive = receive
        self._gone = gone
        self._keys = KeyFile(config.psk_file) if config.psk_file is not None else None
        key_of = self._key_of if self._keys is not None else None
        self._context, self._kept = server_context(key_of, config.ca, config.certificate, config.key)
        self._context.set_cookie_generate_callback(self._cookie)
        self._context.set_cookie_verify_callback(self._verify)
        self._secrets = (secrets.token_bytes(32), secrets.token_bytes(32))
        self._secret_at = time.monotonic()
        self._sessions: dict[Address, Session] = {}
        self._of: dict[str, list[Session]] = {}
        """Those sessions by credential, the newest last."""
        self._shaking: dict[Address, Session] = {}
        self._current: Session | None = None
        self._complained_at = -COMPLAIN_S
        self._listener = self._new_listener()
        self._endpoint: UdpEndpoint | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self.counts: Counter[str] = Counter()
        """handshakes, failed, strangers (datagrams of no session), crowded (handshakes that had no place), raw_keys
        (failed ones of devices that have raw public keys only), connection_ids (sessions whose device would have used
        connection identifiers), unencrypted (CoAP without DTLS)."""

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def port(self) -> int:
        return self._endpoint.address[1] if self._endpoint is not None else 0

    @property
    def endpoint(self) -> UdpEndpoint | None:
        return self._endpoint

    def open(self) -> None:
        """Raises OSError where the address cannot be bound."""
        self._endpoint = UdpEndpoint.open(self._config.host, self._config.port, self._datagram)
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def close(self) -> None:
        """End all sessions, telling the peers."""
        if self._ticking is not None:
            self._ticking.cancel()
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._shaking.clear()
        self._of.clear()
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _datagram(self, address: Address, data: bytes) -> None:
        if is_client_hello(data):
            self._hello(address, data)
            return
        session = self._sessions.get(address)
        if self._shaking and data and (session is None or data[0] in (HANDSHAKE, CHANGE_CIPHER)):
            session = self._shaking.get(address, session)
        if session is None:
            self._stranger(address, data)
            return
        self._feed(session, data)

    def _stranger(self, address: Address, data: bytes) -> None:
        """A datagram of no session. CoAP without DTLS is told so at once (with less than was sent), or the device would
        try for minutes."""
        self.counts["strangers"] += 1
        try:
            message = parse(data)
        except MessageError:
            return
        if message.kind == codes.CON:
            self.counts["unencrypted"] += 1
            self._send(address, serialise(codes.RST, codes.EMPTY, message.mid))
            self._warn(address, "it speaks CoAP without DTLS at the port of DTLS: give it a key, or another port")

    def _feed(self, session: Session, data: bytes) -> None:
        shaking = session.peer is None
        self._current = session
        try:
            messages = session.feed(data)
        except SessionOver as over:
            if shaking:
                self._complain(session, str(over))
            self._forget(session)
            return
        finally:
            self._current = None
        session.seen = time.monotonic()
        peer = session.peer
        if peer is None:
            return
        if shaking:
            self._established(session)
        for message in messages:
            self._receive(peer, message)

    def _hello(self, address: Address, data: bytes) -> None:
        """A ClientHello: without a cookie it is answered with one and forgotten (RFC 6347 §4.2.1)."""
        shaking = self._shaking.get(address)
        if shaking is not None:  # sent again; or the peer starts anew with another one
            self._feed(shaking, data)
            return
        listener = self._listener
        listener.set_app_data(address)
        try:
            listener.bio_write(data)
            listener.DTLSv1_listen()
        except SSL.WantReadError:
            try:
                if self._endpoint is not None:
                    self._endpoint.send(address, listener.bio_read(2048))
            except SSL.Error:
                pass
            return
        except SSL.Error:
            self.counts["failed"] += 1
            self._warn(address, "no ClientHello that could be answered")
            self._listener = self._new_listener()
            return
        self._listener = self._new_listener()
        if len(self._shaking) >= self._config.max_handshakes:
            self.counts["crowded"] += 1
            return
        session = Session(listener, address, lambda record: self._send(address, record))
        session.offer = offer_of(data)
        session.started = session.seen = time.monotonic()
        self._shaking[address] = session
        self._feed(session, b"")

    def _established(self, session: Session) -> None:
        self.counts["handshakes"] += 1
        self.counts["connection_ids"] += session.offer.connection_id
        address = session.address
        peer = session.peer
        assert peer is not None
        self._shaking.pop(address, None)
        former = self._sessions.get(address)
        if former is not None:
            self._forget(former)
        if len(self._sessions) >= self._config.max_sessions:
            self._forget(min(self._sessions.values(), key=lambda other: other.seen))
        self._sessions[address] = session
        of_this = self._of.setdefault(peer.credential, [])
        of_this.append(session)
        if len(of_this) > OF_ONE:
            self._forget(of_this[0])
        log.debug("session with %s: %s", peer, session.cipher)

    def _forget(self, session: Session) -> None:
        for table in (self._sessions, self._shaking):
            if table.get(session.address) is session:
                del table[session.address]
        peer = session.peer
        if peer is None:
            return
        of_this = self._of.get(peer.credential, [])
        if session in of_this:
            of_this.remove(session)
            if not of_this:
                del self._of[peer.credential]
        self._gone(peer)

    def _complain(self, session: Session, why: str) -> None:
        """Say that a handshake failed."""
        self.counts["failed"] += 1
        if session.offer.raw_keys:
            self.counts["raw_keys"] += 1
            why += "; it has raw public keys only, which are not taken here: give it a pre-shared key or a certificate"
        else:
            why += " (wrong identity, key or certificate?)"
        self._warn(session.address, f"{why}; {self.counts['failed']} handshakes failed so far")

    def _warn(self, address: Address, why: str) -> None:
        """Not more often than people can read."""
        now = time.monotonic()
        if now - self._complained_at < COMPLAIN_S:
            return
        self._complained_at = now
        log.warning("no session with %s:%d: %s", address[0], address[1], why)

    def _send(self, address: Address, record: bytes) -> None:
        if self._endpoint is not None:
            self._endpoint.send(address, record)

    def _tick(self) -> None:
        now = time.monotonic()
        for session in list(self._shaking.values()):
            try:
                if now - session.started > HANDSHAKE_S:
                    raise SessionOver("the handshake took too long")
                session.retransmit()
            except SessionOver as over:
                self._complain(session, str(over))
                self._forget(session)
        if now - self._secret_at > COOKIE_S:
            self._secret_at = now
            self._secrets = (secrets.token_bytes(32), self._secrets[0])
            self._end_old(now)
        self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _end_old(self, now: float) -> None:
        wall = time.time()
        for session in list(self._sessions.values()):
            expired = session.expires_at is not None and session.expires_at < wall
            if expired or now - session.seen > self._config.idle_s:
                session.close()
                self._forget(session)

    def _new_listener(self) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_ciphertext_mtu(self._config.mtu)
        connection.set_accept_state()
        return connection

    def _key_of(self, identity: str) -> bytes | None:
        key = self._keys.find(identity) if self._keys is not None else None
        if key is not None and self._current is not None:
            self._current.identity = identity
        return key

    def _cookie(self, connection: SSL.Connection) -> bytes:
        return _mac(self._secrets[0], connection.get_app_data())

    def _verify(self, connection: SSL.Connection, cookie: bytes) -> bool:
        address = connection.get_app_data()
        return any(hmac.compare_digest(cookie, _mac(secret, address)) for secret in self._secrets)


def _mac(secret: bytes, address: Address) -> bytes:
    return hmac.digest(secret, f"{address[0]}|{address[1]}".encode(), hashlib.sha256)[:32]
