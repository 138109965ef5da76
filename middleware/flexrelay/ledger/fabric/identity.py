"""Who the gateway is on Fabric: its serialised identity, its signatures, its transaction ids."""

import hashlib
import logging
import secrets
import time
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from flexrelay.ledger.fabric import files
from flexrelay.ledger.fabric.errors import AccessDenied, ProfileError
from flexrelay.ledger.fabric.messages import SerializedIdentity
from flexrelay.ledger.fabric.profile import Profile
from flexrelay.ledger.port import GatewaySigner, LedgerError
from flexrelay_schemas.keys import multikey, public_key

_LOG = logging.getLogger(__name__)
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ECDSA = ec.ECDSA(hashes.SHA256())
NONCE_BYTES: Final = 24


class KeyFileSigner:
    """A signer over an unencrypted key file. Raises ProfileError."""

    def __init__(self, path: str, field: str = "identity.key") -> None:
        self._private = files.read_key(path, field)
        self._public_key = multikey(self._private.public_key())

    @property
    def public_key(self) -> str:
        return self._public_key

    async def sign(self, message: bytes, /) -> bytes:
        r, s = decode_dss_signature(self._private.sign(message, _ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def fabric_signature(raw: bytes) -> bytes:
    """DER of a raw r ‖ s with the smaller of the two possible s: Fabric denies access to the other without a hint.

    Raises ValueError when it is no signature of 64 bytes.
    """
    if len(raw) != 64:
        raise ValueError(f"a P-256 signature has 64 bytes (r and s), this one {len(raw)}")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    if not (0 < r < P256_ORDER and 0 < s < P256_ORDER):
        raise ValueError("r and s of a P-256 signature lie between 0 and the curve's order")
    return encode_dss_signature(r, min(s, P256_ORDER - s))


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """Hex SHA-256 of nonce ‖ creator."""
    return hashlib.sha256(nonce + creator).hexdigest()


def new_nonce() -> bytes:
    return secrets.token_bytes(NONCE_BYTES)


class Identity:
    """The gateway's certificate with the signer of its key.

    The certificate is read again when its file changes, so a renewed one is taken while running; another key needs a
    new connection. Raises ProfileError when certificate and key do not belong together.
    """

    def __init__(self, profile: Profile, signer: GatewaySigner | None = None) -> None:
        if signer is None:
            if not profile.identity.key:
                raise ProfileError("identity.key: the profile names no key file and no signer was given; add one")
            signer = KeyFileSigner(profile.identity.key)
        self.org = profile.org
        self._path = profile.identity.certificate
        self._signer = signer
        self._watched = files.Watched([self._path])
        self._looked = time.monotonic()
        self._load()

    def _load(self) -> None:
        certificate = files.read_certificate(self._path, "identity.certificate")
        point = files.certificate_point(certificate, self._path, "identity.certificate")
        if point != _point_of(self._signer.public_key):
            raise ProfileError(
                f"identity: the certificate in {self._path} is not for the gateway's key; "
                "name the certificate that was issued for it, or have one issued"
            )
        self.identifier = hashlib.sha256(point).hexdigest()
        self._ends = certificate.not_valid_after_utc
        self._ends_s = self._ends.timestamp()
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.creator: bytes = SerializedIdentity(mspid=self.org, id_bytes=pem).SerializeToString()

    def renew(self) -> bool:
        """Read the certificate again when its file changed; one that is not for the key is logged and not used."""
        now = time.monotonic()
        if now - self._looked < files.LOOK_EVERY_S:
            return False
        self._looked = now
        if not self._watched.changed():
            return False
        try:
            self._load()
        except ProfileError as error:
            _LOG.error("the gateway's new certificate is not used: %s", error)
            return False
        return True

    def check(self) -> None:
        """Raises AccessDenied when the certificate has ended. Not every peer looks at it (2.5 does not for what it
        executes itself), and what the orderers refuse would count as a transaction that is refused for good."""
        if time.time() >= self._ends_s:
            raise AccessDenied(
                f"identity.certificate: the certificate in {self._path} expired at {self._ends:%Y-%m-%d %H:%M} UTC; "
                "have a new one issued for the same key: it is taken without a restart"
            )

    async def sign(self, message: bytes) -> bytes:
        """The DER signature over the message. Raises LedgerError for a signer that gives no P-256 signature."""
        raw = await self._signer.sign(message)
        try:
            return fabric_signature(raw)
        except ValueError as error:
            raise LedgerError(f"the gateway's signer does not sign as Fabric asks: {error}") from None


def _point_of(text: str) -> bytes:
    key = public_key(text)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ProfileError("identity: the gateway's key is not P-256; Fabric knows no Ed25519: enrol a P-256 key")
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
