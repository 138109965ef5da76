"""Text encodings of bytes: base64url without padding (JOSE), and multibase base58btc (DID Core)."""

import binascii
import re

import base58

_TO_URL = bytes.maketrans(b"+/", b"-_")
_BASE58 = re.compile(r"z[1-9A-HJ-NP-Za-km-z]{0,511}")


def b64u(data: bytes) -> str:
    """base64url without padding (RFC 4648 §5)."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode()


def b64u_decode(text: str) -> bytes:
    """Inverse of `b64u`: one text for each bytes. Raises ValueError for anything that `b64u` does not write: padding,
    the other alphabet, and a last character with bits that belong to no byte (RFC 4648 §3.5)."""
    standard = text.replace("-", "+").replace("_", "/")
    try:
        data = binascii.a2b_base64(standard + "=" * (-len(text) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64url: {error}") from None
    if b64u(data) != text:
        raise ValueError("not base64url: padded, of another alphabet, or with stray bits at the end")
    return data


def multibase(data: bytes) -> str:
    """Multibase base58btc: 'z' and the base58 digits."""
    return "z" + base58.b58encode(data).decode()


def multibase_decode(text: str) -> bytes:
    """Inverse of `multibase`. Raises ValueError."""
    if not _BASE58.fullmatch(text):  # base58 itself would pass over white space at the end
        raise ValueError("not a base58btc multibase text")
    return bytes(base58.b58decode(text[1:]))
