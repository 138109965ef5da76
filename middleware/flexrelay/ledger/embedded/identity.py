"""A gateway's identity on the ledger, made from its public key."""

import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.keys import public_key


def key_identifier(multikey: str) -> str:
    """Hex SHA-256 of the public key: the uncompressed point of P-256 (Fabric's SKI), the 32 bytes of Ed25519.

    Raises ValueError when the text is no Multikey that is known here.
    """
    key = public_key(multikey)
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    else:
        raw = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return hashlib.sha256(raw).hexdigest()


def creator_bytes(org: str, multikey: str) -> bytes:
    """The serialised creator, as it enters the transaction id."""
    return canonical({"key": multikey, "org": org})


def transaction_id(nonce: bytes, creator: bytes) -> str:
    """Hex SHA-256 of nonce ‖ creator, as on Fabric."""
    return hashlib.sha256(nonce + creator).hexdigest()
