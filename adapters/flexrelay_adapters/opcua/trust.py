"""The certificates of one folder: our own, and which servers are trusted.

    own/certificate.der, own/key.pem    ours
    trusted/*.der                       servers' certificates, or authorities' whose servers are trusted
    pending/*.der                       shown by servers, waiting for somebody to decide
    rejected/*.der                      never trusted
    revocations/*.crl                   newest list of each trusted authority: what it vouches for no longer

Files other than ours are named by their SHA-256 thumbprint. All checks are of the moment: a decision takes effect with
the next connection.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flexrelay_adapters.opcua.refusals import ConnectionLost

FOLDERS: Final = ("trusted", "pending", "rejected")
PENDING: Final = 200
"""Certificates that may wait; beyond it new ones are not kept, so that nobody fills the disk."""
_MAX_BYTES: Final = 32_768
_VALID_DAYS: Final = 5 * 365


class UntrustedServer(ConnectionLost):
    """The server's certificate is not (or no longer) one that may be trusted; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Own:
    """Our certificate (DER) and its key (PEM)."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Known:
    """A server's (or authority's) certificate in one of the folders."""

    thumbprint: str
    state: str
    """trusted, pending or rejected."""
    subject: str
    application_uri: str
    valid_until: datetime


class TrustList:
    """See the module. `now` is the clock that validity is checked by."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder = folder
        self._now = now

    def own(self) -> Own:
        """Raises ConnectionLost when there is none."""
        own = Own(self.folder / "own" / "certificate.der", self.folder / "own" / "key.pem")
        for path in (own.certificate, own.key):
            if not path.is_file():
                raise ConnectionLost(f"there is no {path}: `flexrelay opcua certificate` makes it")
        return own

    def check_own(self, application_uri: str) -> None:
        """Raises ValueError when our certificate is missing, expired, or of another application URI."""
        try:
            certificate = x509.load_der_x509_certificate(self.own().certificate.read_bytes())
        except ConnectionLost as error:
            raise ValueError(str(error)) from None
        except ValueError as error:
            raise ValueError(f"{self.own().certificate} is no DER certificate: {error}") from None
        renew = "`flexrelay opcua certificate --renew` makes a new one"
        if application_uri not in uris_of(certificate):
            raise ValueError(
                f"the certificate in {self.own().certificate} is of {', '.join(uris_of(certificate)) or 'no URI'}, "
                f"not of application_uri {application_uri}: {renew}"
            )
        if certificate.not_valid_after_utc < self._now():
            raise ValueError(f"{self.own().certificate} has expired on {certificate.not_valid_after_utc:%F}: {renew}")

    def make_own(self, application_uri: str, host: str) -> Own:
        """A new RSA key and a self-signed certificate, as OPC UA wants it (Part 6 §6.2.2); replaces what is there."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = self_signed(key, application_uri, host, self._now())
        home = self.folder / "own"
        home.mkdir(parents=True, exist_ok=True)
        pem = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write(home / "key.pem", pem, 0o600)
        _write(home / "certificate.der", certificate.public_bytes(Encoding.DER), 0o644)
        return self.own()

    def check_server(self, chain: bytes, application_uri: str, url: str) -> x509.Certificate:
        """The server's certificate, when it may be trusted: first what it says, then who vouches for it.

        An unknown one is kept as pending. Raises UntrustedServer.
        """
        if not chain or len(chain) > _MAX_BYTES:
            raise UntrustedServer(f"{url} shows no usable certificate: give the server one")
        try:
            certificate = x509.load_der_x509_certificate(_first(chain))
        except ValueError as error:
            raise UntrustedServer(f"{url} shows a certificate that cannot be read: {error}") from None
        thumbprint = thumbprint_of(certificate)
        what = f"the certificate {thumbprint[:16]}… of {url}"
        if (self.folder / "rejected" / f"{thumbprint}.der").exists():
            raise UntrustedServer(f"{what} is rejected: `flexrelay opcua trust {thumbprint[:16]}` takes that back")
        if self._revoked(certificate):
            raise UntrustedServer(f"{what} is revoked by its authority: give the server a new one")
        if not self._vouched(certificate):
            self._wait(certificate, thumbprint)
            names = ", ".join(uris_of(certificate)) or "no application URI"
            raise UntrustedServer(
                f"{what} ({names}) waits for approval: compare its thumbprint with the server's own, then "
                f"`flexrelay opcua trust {thumbprint[:16]}`"
            )
        now = self._now()
        if certificate.not_valid_after_utc < now:
            raise UntrustedServer(
                f"{what} has expired on {certificate.not_valid_after_utc:%F %T} UTC: renew it at the server, then "
                "trust the new one"
            )
        if certificate.not_valid_before_utc > now:
            raise UntrustedServer(
                f"{what} is not valid before {certificate.not_valid_before_utc:%F %T} UTC: check both clocks"
            )
        if application_uri not in uris_of(certificate):
            raise UntrustedServer(
                f"{what} is of {', '.join(uris_of(certificate)) or 'no application URI'}, the configuration expects "
                f"{application_uri}: set `server`, or connect to the right server"
            )
        return certificate

    def list(self) -> list[Known]:
        """All certificates but our own, by state and thumbprint."""
        return [known for state in FOLDERS for known in self._in(state)]

    def trust(self, thumbprint: str) -> Known:
        """Trust a certificate, named by the beginning of its thumbprint. Raises ValueError."""
        return self._move(thumbprint, "trusted")

    def reject(self, thumbprint: str) -> Known:
        """Never trust it. Raises ValueError."""
        return self._move(thumbprint, "rejected")

    def add(self, data: bytes) -> Known:
        """Trust a certificate that came another way (DER or PEM); of a revocation list the authority, which must be
        trusted already. Raises ValueError."""
        revocations = _revocations(data)
        if revocations is not None:
            return self._take_back(revocations)
        try:
            certificate = (
                x509.load_pem_x509_certificate(data) if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)
            )
        except ValueError as error:
            raise ValueError(f"no certificate: {error}") from None
        self._wait(certificate, thumbprint_of(certificate))
        return self._move(thumbprint_of(certificate), "trusted")

    def _vouched(self, certificate: x509.Certificate) -> bool:
        if (self.folder / "trusted" / f"{thumbprint_of(certificate)}.der").exists():
            return True
        return any(
            authority.not_valid_after_utc >= self._now() and _issued(certificate, authority)
            for authority in self._authorities()
        )

    def _authorities(self) -> Iterator[x509.Certificate]:
        for path in (self.folder / "trusted").glob("*.der"):
            try:
                found = x509.load_der_x509_certificate(path.read_bytes())
            except ValueError:
                continue
            if _is_authority(found):
                yield found

    def _list_of(self, authority: x509.Certificate) -> Path:
        return self.folder / "revocations" / f"{thumbprint_of(authority)}.crl"

    def _revoked(self, certificate: x509.Certificate) -> bool:
        for authority in self._authorities():
            path = self._list_of(authority)
            if path.exists() and _issued(certificate, authority):
                found = _revocations(path.read_bytes())
                if found is None or not _signed(found, authority):
                    raise UntrustedServer(f"{path} is no revocation list of its authority: add it again")
                if found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                    return True
        return False

    def _take_back(self, revocations: x509.CertificateRevocationList) -> Known:
        for authority in self._authorities():
            if revocations.issuer != authority.subject or not _signed(revocations, authority):
                continue
            path = self._list_of(authority)
            known = _revocations(path.read_bytes()) if path.exists() else None
            if known is not None and known.last_update_utc > revocations.last_update_utc:
                raise ValueError(f"a newer revocation list of {known.last_update_utc:%F %T} UTC is here already")
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, revocations.public_bytes(Encoding.DER), 0o644)
            return next(each for each in self._in("trusted") if each.thumbprint == thumbprint_of(authority))
        raise ValueError(
            f"the revocation list is of {revocations.issuer.rfc4514_string()}, which is no trusted authority here: add "
            "its certificate first"
        )

    def _wait(self, certificate: x509.Certificate, thumbprint: str) -> None:
        place = self.folder / "pending"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{thumbprint}.der"
        if not path.exists() and len(list(place.glob("*.der"))) < PENDING:
            _write(path, certificate.public_bytes(Encoding.DER), 0o644)

    def _in(self, state: str) -> Iterator[Known]:
        for path in sorted((self.folder / state).glob("*.der")):
            try:
                certificate = x509.load_der_x509_certificate(path.read_bytes())
            except ValueError:
                continue
            yield Known(
                thumbprint_of(certificate),
                state,
                certificate.subject.rfc4514_string(),
                ", ".join(uris_of(certificate)),
                certificate.not_valid_after_utc,
            )

    def _move(self, thumbprint: str, state: str) -> Known:
        wanted = thumbprint.lower().replace(":", "")
        found = [known for known in self.list() if wanted and known.thumbprint.startswith(wanted)]
        if not found:
            raise ValueError(f"no certificate {thumbprint}; `flexrelay opcua list` shows those that are here")
        if len({known.thumbprint for known in found}) > 1:
            raise ValueError(f"{thumbprint} is the beginning of {len(found)} certificates; give more of it")
        name = f"{found[0].thumbprint}.der"
        (self.folder / state).mkdir(parents=True, exist_ok=True)
        for known in found:
            if known.state != state:
                (self.folder / known.state / name).replace(self.folder / state / name)
        return next(known for known in self._in(state) if known.thumbprint == found[0].thumbprint)


def thumbprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER form, hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def uris_of(certificate: x509.Certificate) -> list[str]:
    """Its application URIs: the URIs among the subject's alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def self_signed(
    key: rsa.RSAPrivateKey,
    application_uri: str,
    host: str,
    valid_from: datetime,
    days: int = _VALID_DAYS,
) -> x509.Certificate:
    """An application instance certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, application_uri[:64])])
    uses = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # self-signed: it vouches for itself
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    names = [x509.UniformResourceIdentifier(application_uri), x509.DNSName(host)]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from - timedelta(minutes=5))
        .not_valid_after(valid_from + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(uses, critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _first(chain: bytes) -> bytes:
    """The first certificate of concatenated ones: a DER sequence says its length."""
    if chain[:1] != b"\x30" or len(chain) < 4:
        return chain
    return chain[: int.from_bytes(chain[2:4], "big") + 4] if chain[1] == 0x82 else chain


def _revocations(data: bytes) -> x509.CertificateRevocationList | None:
    """None: it is no revocation list (DER or PEM)."""
    try:
        return x509.load_pem_x509_crl(data) if b"-----BEGIN" in data else x509.load_der_x509_crl(data)
    except ValueError:
        return None


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _signed(revocations: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return revocations.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # whatever key it is
    except (ValueError, TypeError):
        return False


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_suffix(path.suffix + ".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    temporary.replace(path)
