"""Certificates and keys in files: read with errors that name file and remedy, and read again when they change."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.ledger.fabric.errors import ProfileError

LOOK_EVERY_S: Final = 1.0
"""How often running connections look whether a file changed."""


def read_file(path: str, field: str) -> bytes:
    """Raises ProfileError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ProfileError(
            f"{field}: {path} cannot be read ({error.strerror}); check the path in the profile"
        ) from None


def read_certificates(path: str, field: str) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one. Raises ProfileError."""
    try:
        return x509.load_pem_x509_certificates(read_file(path, field))
    except ValueError:
        raise ProfileError(f"{field}: {path} holds no certificate in PEM form") from None


def read_certificate(path: str, field: str) -> x509.Certificate:
    """A certificate that is valid now. Raises ProfileError."""
    certificate = read_certificates(path, field)[0]
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        raise ProfileError(
            f"{field}: the certificate in {path} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            "have a new one issued for the same key"
        )
    if certificate.not_valid_before_utc > now:
        raise ProfileError(
            f"{field}: the certificate in {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC "
            "on; check the clock of this machine"
        )
    return certificate


def certificate_point(certificate: x509.Certificate, path: str, field: str) -> bytes:
    """The uncompressed P-256 point of the certificate's key. Raises ProfileError."""
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise ProfileError(f"{field}: the certificate in {path} is not for a P-256 key; Fabric gateways need one")
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def read_key(path: str, field: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key in an unencrypted PEM file. Raises ProfileError (never with any of the file's contents)."""
    data = read_file(path, field)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError:
        raise ProfileError(f"{field}: the key in {path} is encrypted; open the wallet and give its signer") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ProfileError(f"{field}: {path} holds no private key in PEM form (PKCS#8)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ProfileError(f"{field}: the key in {path} is not a P-256 key")
    return key


class Watched:
    """Notices that files were replaced, by their time, size and inode."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(path for path in paths if path)
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether a file is another one than at the last call. A file that is missing for a moment is no change."""
        now = self._look()
        if now == self._seen or None in now:
            return False
        self._seen = now
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_mark(path) for path in self._paths)


def _mark(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
