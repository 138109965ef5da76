"""Keys and certificates of the server, checked before anything listens."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from flexrelay_chaincode.config import ChaincodeConfig, ConfigError


def server_context(config: ChaincodeConfig) -> ssl.SSLContext:
    """TLS both ways: a peer must show a certificate of `client_ca`. Raises ConfigError."""
    certificate = _read(config.tls_certificate, "tls_certificate")
    key = _read(config.tls_key, "tls_key")
    authorities = _read(config.client_ca, "client_ca")
    _check_pair(config, certificate, key)
    _certificates(authorities, config.client_ca, "client_ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(config.tls_certificate, config.tls_key)
    context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    context.set_alpn_protocols(["h2"])
    return context


def _read(name: str, key: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {name} cannot be read: {error.strerror}") from None


def _certificates(pem: bytes, name: str, key: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(f"{key}: {name} holds no PEM certificate") from None


def _check_pair(config: ChaincodeConfig, certificate: bytes, key: bytes) -> None:
    leaf = _certificates(certificate, config.tls_certificate, "tls_certificate")[0]
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise ConfigError(f"tls_key: {config.tls_key} holds no PEM private key without a password") from None
    if _spki(private.public_key()) != _spki(leaf.public_key()):
        raise ConfigError(f"tls_key: {config.tls_key} is not the key of {config.tls_certificate}")
    now = datetime.datetime.now(datetime.UTC)
    name, first, last = config.tls_certificate, leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now >= last:
        raise ConfigError(f"tls_certificate: {name} expired on {last}: issue a new one")
    if now < first:
        raise ConfigError(f"tls_certificate: {name} is not valid before {first}: check the clock")


def _spki(key: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    found: bytes = key.public_bytes(encoding, form)  # type: ignore[attr-defined]  # every public key has it
    return found
