"""Whom the client believes: the certificates of the profile's organisations, and signatures by their members."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.files import read_certificates
from flexrelay.ledger.fabric.messages import SerializedIdentity
from flexrelay.ledger.fabric.profile import Organisation

Kind = Literal["peer", "orderer"]

_ECDSA = ec.ECDSA(hashes.SHA256())
_MAX_KNOWN = 10_000
_MAX_CHAIN = 5


@dataclass(frozen=True, slots=True)
class Member:
    """A node whose certificate chains to its organisation's. `identifier`: hex SHA-256 of its public key's point."""

    org: str
    name: str
    key: ec.EllipticCurvePublicKey

    @property
    def identifier(self) -> str:
        point = self.key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        return hashlib.sha256(point).hexdigest()

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (DER) is this member's over the message."""
        try:
            self.key.verify(signature, message, _ECDSA)
        except InvalidSignature:
            return False
        return True


class Trust:
    """Certificates of organisations by (MSP id, kind); remembers the members that it has checked.

    Expiry is not looked at: a block from years ago was signed by certificates that have run out since.
    """

    def __init__(self, authorities: dict[tuple[str, Kind], list[x509.Certificate]]) -> None:
        self._authorities = authorities
        self._members: dict[tuple[bytes, Kind], Member] = {}
        self._creators: dict[bytes, Member] = {}

    @classmethod
    def of(cls, organisations: Sequence[Organisation]) -> "Trust":
        """Raises ProfileError for a file that cannot be read."""
        found: dict[tuple[str, Kind], list[x509.Certificate]] = {}
        for number, item in enumerate(organisations):
            certificates = read_certificates(item.ca, f"organisations.{number}.ca ({item.msp})")
            found.setdefault((item.msp, item.kind), []).extend(certificates)
        return cls(found)

    def orgs(self, kind: Kind) -> tuple[str, ...]:
        return tuple(sorted(org for org, its in self._authorities if its == kind))

    def member(self, serialized: bytes, kind: Kind) -> Member:
        """The node behind a SerializedIdentity. Raises Untrusted."""
        known = self._members.get((serialized, kind))
        if known is not None:
            return known
        try:
            identity = SerializedIdentity.FromString(serialized)
        except DecodeError:
            raise Untrusted("a signer's identity cannot be read") from None
        member = self._check(identity.mspid, identity.id_bytes, kind)
        if len(self._members) >= _MAX_KNOWN:
            self._members.clear()
        self._members[serialized, kind] = member
        return member

    def creator(self, serialized: bytes) -> Member:
        """Who created a transaction: anybody of an organisation with peers, in whatever role. Raises Untrusted."""
        known = self._creators.get(serialized)
        if known is not None:
            return known
        try:
            identity = SerializedIdentity.FromString(serialized)
        except DecodeError:
            raise Untrusted("a creator's identity cannot be read") from None
        member = self._check(identity.mspid, identity.id_bytes, "peer", any_role=True)
        if len(self._creators) >= _MAX_KNOWN:
            self._creators.clear()
        self._creators[serialized] = member
        return member

    def _check(self, org: str, pem: bytes, kind: Kind, *, any_role: bool = False) -> Member:
        authorities = self._authorities.get((org, kind))
        if authorities is None:
            raise Untrusted(
                f'{org!r} signs as {kind}, but the profile has no organisation {org!r} with kind = "{kind}"'
            )
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise Untrusted(f"a certificate of {org} cannot be read") from None
        if not _chains(certificate, authorities):
            raise Untrusted(f"a certificate in {org}'s name was not issued by {org}: {_name(certificate)}")
        units = [
            str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        ]
        if kind not in units and not any_role:
            raise Untrusted(f"{_name(certificate)} of {org} signs as {kind}, but its certificate is for {units}")
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Untrusted(f"{_name(certificate)} of {org} has no elliptic-curve key")
        return Member(org, _name(certificate), key)


def _chains(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    """Whether the certificate leads to a self-signed one among the authorities."""
    current = certificate
    for _ in range(_MAX_CHAIN):
        issuer = next((item for item in authorities if _issued(current, item)), None)
        if issuer is None:
            return False
        if issuer.subject == issuer.issuer:
            return True
        current = issuer
    return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return basic.ca


def _name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else "a certificate without a name"
