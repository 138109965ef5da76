"""Devices that show a certificate on their transport: a signing request of the device's own key, and the binding of
what an authority issued. The gateway is no authority."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from flexrelay.app import Site
from flexrelay.commissioning.devicekeys import read_key
from flexrelay.commissioning.devices import FOLDER, find_device, receive_device
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.identities import registered
from flexrelay.devices import DeviceRecord
from flexrelay_schemas.did import split_did
from flexrelay_schemas.keys import multikey

_MAX_NAME: Final = 64
"""Of a common name (RFC 5280, upper bound)."""


async def signing_request(site: Site, named: str, org: str = "", key: Path | None = None, name: str = "") -> bytes:
    """A PKCS#10 request (PEM) of the device's current key. `name` is the common name: what the transport will show;
    the DID's last part without. `key`: where the private key is, when it was moved. Raises CommissioningError."""
    gateway, record = find_device(site, named, org)
    path = key or _key_here(site, record)
    private = read_key(path)
    known = await registered(gateway, record.did)
    if known is None or multikey(private.public_key()) != known["key"]:
        raise CommissioningError(f"{path} is not the current key of {record.name} on the ledger")
    common = name or split_did(record.did)[1]
    if len(common) > _MAX_NAME or not common.isprintable():
        raise CommissioningError(f"common name {common!r}: at most {_MAX_NAME} printable characters")
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    )
    algorithm = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(private, algorithm).public_bytes(Encoding.PEM)


async def bind_certificate(
    site: Site, named: str, data: bytes, protocol: str, org: str = "", authority: bytes | None = None
) -> DeviceRecord:
    """Bind the common name of an issued certificate (PEM or DER) to the device, at all its receivers here.

    It must be of the device's current key, within its validity, and of `authority` (its certificate) when that is
    given. Raises CommissioningError: then nothing is bound.
    """
    gateway, record = find_device(site, named, org)
    certificate = _read(data, "certificate")
    public = certificate.public_key()
    known = await registered(gateway, record.did)
    if not isinstance(public, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise CommissioningError("the certificate is of another kind of key than P-256 and Ed25519")
    try:
        fits = known is not None and multikey(public) == known["key"]
    except ValueError as error:
        raise CommissioningError(f"the certificate's key: {error}") from None
    if not fits:
        raise CommissioningError(f"the certificate is not of the current key of {record.name}: flexrelay device csr")
    if known is None or known["status"] != "active":
        raise CommissioningError(f"{record.name} is not active")
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise CommissioningError(
            f"the certificate is valid from {certificate.not_valid_before_utc:%F} to "
            f"{certificate.not_valid_after_utc:%F}, not now"
        )
    if authority is not None:
        try:
            certificate.verify_directly_issued_by(_read(authority, "authority's certificate"))
        except (ValueError, TypeError, InvalidSignature):
            raise CommissioningError("the certificate was not issued by that authority") from None
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not str(names[0].value):
        raise CommissioningError("the certificate needs exactly one common name")
    credential = str(names[0].value)
    if credential == split_did(record.did)[1]:
        return record  # known by that name on every transport
    kept = tuple(pair for pair in record.credentials if pair[0] != protocol)
    bound = replace(record, credentials=(*kept, (protocol, credential)))
    await receive_device(site, bound)
    return bound


def _key_here(site: Site, record: DeviceRecord) -> Path:
    found = sorted((site.folder / FOLDER).glob(f"*/{record.name}.pem"))
    if not found:
        raise CommissioningError(f"the key of {record.name} is not here any more: name its file with --key")
    if len(found) > 1:
        raise CommissioningError(f"{', '.join(map(str, found))}: choose one with --key")
    return found[0]


def _read(data: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data) if b"-----BEGIN" in data else x509.load_der_x509_certificate(data)
    except ValueError:
        raise CommissioningError(f"the {what} cannot be read: PEM or DER is wanted") from None
