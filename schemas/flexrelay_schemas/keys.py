"""Public keys as Multikey text and the verification of signatures (Ed25519, ECDSA P-256).

A P-256 signature is the raw r ‖ s of 64 bytes over SHA-256 (JOSE's ES256), an Ed25519 signature is RFC 8032's.
"""

from collections.abc import Callable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from flexrelay_schemas.encoding import multibase, multibase_decode

_ED25519 = b"\xed\x01"
_P256 = b"\x80\x24"
_ECDSA = ec.ECDSA(hashes.SHA256())

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def multikey(key: PublicKey) -> str:
    """The Multikey text of a public key (Controlled Identifiers 1.0, Multikey)."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return multibase(_ED25519 + raw)
    if not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"curve {key.curve.name} is not supported; use P-256")
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return multibase(_P256 + point)


@lru_cache(maxsize=8192)
def public_key(text: str) -> PublicKey:
    """The public key in a Multikey text. Raises ValueError when it is none that is known here."""
    data = multibase_decode(text)
    prefix, raw = data[:2], data[2:]
    if prefix == _ED25519 and len(raw) == 32:
        return ed25519.Ed25519PublicKey.from_public_bytes(raw)
    if prefix == _P256 and len(raw) == 33:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    raise ValueError("not a Multikey of Ed25519 or P-256")


@lru_cache(maxsize=8192)
def _check_of(text: str) -> tuple[Callable[..., None], bool]:
    """(the key's own check, whether it is ECDSA's)."""
    public = public_key(text)
    return public.verify, isinstance(public, ec.EllipticCurvePublicKey)


def verify(key: str, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) is the Multikey `key`'s over `message`. Raises ValueError for a bad key."""
    if len(signature) != 64:
        return False
    check, ecdsa = _check_of(key)
    try:
        if ecdsa:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            check(encode_dss_signature(r, s), message, _ECDSA)
        else:
            check(signature, message)
    except InvalidSignature:
        return False
    return True
