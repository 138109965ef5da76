"""OpenSSL contexts for DTLS 1.2, with the PSK callbacks that pyOpenSSL has no method for.

The callbacks go through cryptography's own binding of the same library. This is the one file that touches it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

_binding = Binding()
_lib: Final[Any] = _binding.lib
_ffi: Final[Any] = _binding.ffi

CIPHERS: Final = (
    b"PSK-AES128-CCM8:PSK-AES128-CCM:PSK-AES128-GCM-SHA256:ECDHE-PSK-AES128-CBC-SHA256:PSK-AES128-CBC-SHA256:"
    b"ECDHE-ECDSA-AES128-CCM8:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
    b":@SECLEVEL=0"
)
"""Those of RFC 7252 §9 and OMA Transport §5.2.8 first. Level 0 because OpenSSL counts CCM_8's tag as 64 bits."""

KeyOf = Callable[[str], bytes | None]


def _basic(method: int) -> SSL.Context:
    if not _lib.Cryptography_HAS_PSK:
        raise RuntimeError("the OpenSSL that cryptography brings has no PSK")
    context = SSL.Context(method)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a resumed session would not tell its identity again
    return context


def server_context(
    key_of: KeyOf | None, ca: Path | None, certificate: Path | None, key: Path | None
) -> tuple[SSL.Context, object]:
    """A server's context, and what must be kept as long as it is used.

    `key_of` gives the key of a PSK identity. With `ca` devices must have a certificate that comes from it.
    Raises ValueError where a file cannot be read.
    """
    context = _basic(SSL.DTLS_SERVER_METHOD)
    context.set_cipher_list(CIPHERS)
    kept: object = None
    if key_of is not None:
        kept = _psk_callback(key_of)
        _lib.SSL_CTX_set_psk_server_callback(context._context, kept)
    try:
        if certificate is not None and key is not None:
            context.use_certificate_chain_file(str(certificate))
            context.use_privatekey_file(str(key))
            context.check_privatekey()
        if ca is not None:
            context.load_verify_locations(str(ca))
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    except SSL.Error as error:
        raise ValueError(f"certificate, key or ca cannot be used: {error}") from None
    return context, kept


def _psk_callback(key_of: KeyOf) -> Any:
    def find(ssl: Any, identity: Any, psk: Any, most: int) -> int:
        if identity == _ffi.NULL:
            return 0
        try:
            key = key_of(_ffi.string(identity).decode())
        except UnicodeDecodeError:
            return 0
        if key is None or len(key) > most:
            return 0  # the handshake ends with unknown_psk_identity
        _ffi.memmove(psk, key, len(key))
        return len(key)

    return _ffi.callback("unsigned int(SSL *, const char *, unsigned char *, unsigned int)", find)


def client_context(
    identity: str | None = None,
    psk: bytes | None = None,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> tuple[SSL.Context, object]:
    """A device's context: PSK, or a certificate. What must be kept comes with it."""
    context = _basic(SSL.DTLS_CLIENT_METHOD)
    kept: object = None
    if identity is not None and psk is not None:
        context.set_cipher_list(b"PSK-AES128-CCM8:@SECLEVEL=0")
        name = identity.encode() + b"\0"

        def give(ssl: Any, hint: Any, identity_: Any, most_identity: int, key_: Any, most: int) -> int:
            if len(name) > most_identity or len(psk) > most:
                return 0
            _ffi.memmove(identity_, name, len(name))
            _ffi.memmove(key_, psk, len(psk))
            return len(psk)

        kept = _ffi.callback(
            "unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)", give
        )
        _lib.SSL_CTX_set_psk_client_callback(context._context, kept)
    else:
        context.set_cipher_list(b"ECDHE-ECDSA-AES128-CCM8:ECDHE-ECDSA-AES128-GCM-SHA256:@SECLEVEL=0")
        if certificate is not None and key is not None:
            context.use_certificate_chain_file(str(certificate))
            context.use_privatekey_file(str(key))
        if ca is not None:
            context.load_verify_locations(str(ca))
            context.set_verify(SSL.VERIFY_PEER)
    return context, kept
