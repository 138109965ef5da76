"""A small certificate authority for each organisation: one root for signing identities, one for TLS.

For networks that have no authority of their own. It issues certificates for keys that it makes (nodes, administrators)
and for public keys that are held elsewhere (gateways' wallets). Keys are P-256, in files of mode 0600.
"""

import datetime as dt
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Role = Literal["client", "peer", "orderer", "admin"]
"""What a certificate's organisational unit says its holder is; Fabric's node OUs."""

_ROOT_DAYS: Final = 3650
_LEAF_DAYS: Final = 1825
_RENEW: Final = dt.timedelta(days=30)
_EARLY: Final = dt.timedelta(minutes=10)
"""Clocks of a consortium differ."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """One root in a folder: `<name>.pem`, `<name>.key`; made when it is not there."""

    def __init__(self, folder: Path, org: str, name: str) -> None:
        self._org = org
        self.pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        if not (self.pair.certificate.is_file() and self.pair.key.is_file()):
            folder.mkdir(parents=True, exist_ok=True)
            self._found(name)
        self._key = _private_key(self.pair.key)
        self._certificate = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())

    @property
    def certificate_pem(self) -> bytes:
        return self.pair.certificate.read_bytes()

    def issue(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        role: Role,
        *,
        hosts: Iterable[str] = (),
        tls: bool = False,
        days: int = _LEAF_DAYS,
    ) -> bytes:
        """A certificate (PEM) for somebody's public key; with `tls` to serve and dial as `hosts` (names, addresses)."""
        names = [_general_name(host) for host in hosts]
        builder = (
            _builder(self._subject(name, role), self._certificate.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if tls:
            purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def pair_for(
        self,
        to: Pair,
        name: str,
        role: Role,
        *,
        hosts: Iterable[str] = (),
        tls: bool = False,
        days: int = _LEAF_DAYS,
    ) -> Pair:
        """A key with its certificate in these files; what is there stays. A certificate that ends within 30 days is
        issued again for the same key, by which channels know their orderers."""
        if to.certificate.is_file():  # it is written after its key
            if not _ends_soon(to.certificate):
                return to
            key = _private_key(to.key)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            write_secret(to.key, _key_pem(key))
        certificate = self.issue(name, key.public_key(), role, hosts=hosts, tls=tls, days=days)
        write_whole(to.certificate, certificate)
        return to

    def _found(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = self._subject(f"{name}.{self._org}", None)
        certificate = (
            _builder(subject, subject, key.public_key(), _ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_secret(self.pair.key, _key_pem(key))
        write_whole(self.pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))

    def _subject(self, name: str, role: Role | None) -> x509.Name:
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, self._org)]
        if role is not None:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role))
        return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _ends_soon(certificate: Path) -> bool:
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return ends < dt.datetime.now(dt.UTC) + _RENEW


def write_secret(path: Path, content: bytes) -> None:
    """A file that only its owner reads, from its first byte on."""
    write_whole(path, content, mode=0o600)


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """The whole file or none: whoever is killed in between leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.new"):  # Fabric reads every file of a certificates' folder
        left.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no elliptic-curve key")
    return key
