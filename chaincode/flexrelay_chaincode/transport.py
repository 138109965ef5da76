"""A connected socket, plain or with TLS: one thread may receive while another sends."""

import socket
import ssl
import struct
import threading
from typing import Final

_CHUNK: Final = 262_144
_LOOK_S: Final = 0.2
_SEND_S: Final = 10.0
_HANDSHAKE_S: Final = 10.0
_TIME: Final = struct.Struct("ll")


class Transport:
    """Raises OSError (ssl.SSLError is one) when the connection breaks."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self._socket = sock
        self._tls: ssl.SSLObject | None = None
        self._lock = threading.Lock()
        if context is not None:
            self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a host that vanished is noticed some time

    def begin(self) -> None:
        """The TLS handshake, if any. In the thread that receives, before anything else."""
        self._socket.settimeout(_HANDSHAKE_S)
        while self._tls is not None:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise ConnectionError("the connection ended in the TLS handshake") from None
                self._in.write(data)
            except ssl.SSLError:
                self._flush()  # the alert that says why
                raise
            else:
                self._flush()
                break
        # The system's own timeouts, not Python's: those would cost a further system call each time.
        self._socket.settimeout(None)
        for option, seconds in ((socket.SO_RCVTIMEO, _LOOK_S), (socket.SO_SNDTIMEO, _SEND_S)):
            value = _TIME.pack(int(seconds), int(seconds % 1 * 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, option, value)

    def receive(self) -> bytes | None:
        """What came; None when nothing did for a while, empty at the end."""
        if self._tls is not None:
            with self._lock:  # the handshake may have left the first bytes behind
                found = self._decrypted()
            if found:
                return found
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return None
        if self._tls is None or not data:
            return data
        with self._lock:
            self._in.write(data)
            return self._decrypted() or None

    def send(self, data: bytes) -> None:
        """All of it. One thread at a time."""
        if self._tls is not None:
            with self._lock:
                self._tls.write(data)
                data = self._out.read()
        self._socket.sendall(data)

    def close(self) -> None:
        """From any thread: whoever receives or sends is woken."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed by the other side

    def release(self) -> None:
        """By the thread that received, when nobody sends any more."""
        self._socket.close()

    def _decrypted(self) -> bytes:
        assert self._tls is not None
        found = []
        try:
            while self._in.pending or self._tls.pending():
                part = self._tls.read(_CHUNK)
                if not part:
                    break
                found.append(part)
        except ssl.SSLWantReadError:
            pass  # a record that is not whole yet
        return found[0] if len(found) == 1 else b"".join(found)

    def _flush(self) -> None:
        data = self._out.read()
        if data:
            self._socket.sendall(data)
