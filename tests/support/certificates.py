"""A certificate authority for tests: server and client certificates in a folder, for one day unless told otherwise."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY_S = 86_400.0


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """`ca` is its certificate's file; `server` and `client` write a signed pair each."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, ends_in_s: float = DAY_S) -> Pair:
        """For 127.0.0.1 and localhost. The same files again each time."""
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        return self._issue("server", names, ends_in_s)

    def client(self, name: str, ends_in_s: float = DAY_S) -> Pair:
        """Its common name is the MQTT user; without a name it has an organisation's only."""
        return self._issue(name, None, ends_in_s)

    def _issue(self, name: str, names: x509.SubjectAlternativeName | None, ends_in_s: float) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        kind = NameOID.COMMON_NAME if name else NameOID.ORGANIZATION_NAME
        subject = x509.Name([x509.NameAttribute(kind, name or "meters")])
        builder = self._builder(subject, key.public_key(), ends_in_s).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        pair = Pair(self.folder / f"{name or 'nameless'}.pem", self.folder / f"{name or 'nameless'}.key")
        signed = builder.sign(self._key, hashes.SHA256())
        pair.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, ends_in_s: float = DAY_S
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(seconds=ends_in_s))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
