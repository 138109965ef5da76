"""Text encodings of bytes: base64url without padding (JOSE), and multibase base58btc (DID Core)."""

import base64
import binascii

import base58


def b64u(data: bytes) -> str:
    """base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64u_decode(text: str) -> bytes:
    """Inverse of `b64u`. Raises ValueError for anything that is not unpadded base64url."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64url: {error}") from None


def multibase(data: bytes) -> str:
    """Multibase base58btc: 'z' and the base58 digits."""
    return "z" + base58.b58encode(data).decode()


def multibase_decode(text: str) -> bytes:
    """Inverse of `multibase`. Raises ValueError."""
    if not text.startswith("z") or len(text) > 512:
        raise ValueError("not a base58btc multibase text")
    return bytes(base58.b58decode(text[1:]))
