"""Canonical JSON for what the demo signs (ASCII keys, integers, strings), base58btc Multikeys, and signatures."""

import base64
import json
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def jcs(value: Any) -> bytes:
    """RFC 8785 for values without floats and with ASCII keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def unb64u(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@cache
def multikey(text: str) -> PublicKey:
    """A Multikey (Controlled Identifiers 1.0): z, then base58btc of a two-byte code and the key."""
    assert text[0] == "z", text
    number = 0
    for letter in text[1:]:
        number = number * 58 + _BASE58.index(letter)
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if data[:2] == b"\xed\x01":
        return ed25519.Ed25519PublicKey.from_public_bytes(data[2:])
    assert data[:2] == b"\x80\x24", f"unknown key code {data[:2].hex()}"
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data[2:])


def signed(key: str, signature: bytes, message: bytes) -> bool:
    """Ed25519, or ECDSA P-256 over SHA-256 with the signature as r ‖ s."""
    public = multikey(key)
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
