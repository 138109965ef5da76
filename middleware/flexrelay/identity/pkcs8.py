"""Encrypted PKCS#8 with scrypt (PBES2, RFC 8018 and RFC 7914) and AES-256-CBC, as OpenSSL and others read it.

The cryptography library writes such files with 2,048 rounds of PBKDF2, which a graphics card undoes quickly for a
human passphrase; hence this one template of DER with scrypt, and a parser of exactly that template.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

SCRYPT_N = 2**14
"""The most that OpenSSL opens within its own memory limit of 32 MB."""
SCRYPT_R = 8
SCRYPT_P = 1
SALT_BYTES = 16
_IV_BYTES = 16

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04


def derive(passphrase: bytes, salt: bytes) -> bytes:
    """The 32-byte key that the passphrase gives with this salt (about 0.05 s and 16 MB)."""
    return Scrypt(salt=salt, length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(passphrase)


def wrap(plain: bytes, key: bytes, salt: bytes, iv: bytes) -> bytes:
    """EncryptedPrivateKeyInfo (DER) of a PrivateKeyInfo under a derived key."""
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    return _tlv(_SEQUENCE, _header(salt, iv) + _tlv(_OCTETS, sealed))


def salt_of(data: bytes) -> bytes | None:
    """The salt of a file of this template; None for any other encryption."""
    found = _split(data)
    return None if found is None else found[0]


def unwrap(data: bytes, key: bytes) -> bytes:
    """The PrivateKeyInfo. Raises ValueError for a wrong key or a damaged file."""
    found = _split(data)
    if found is None:
        raise ValueError("another encryption")
    _, iv, sealed = found
    decryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).decryptor()
    padded = decryptor.update(sealed) + decryptor.finalize()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _header(salt: bytes, iv: bytes) -> bytes:
    costs = b"".join(_integer(value) for value in (SCRYPT_N, SCRYPT_R, SCRYPT_P))
    kdf = _tlv(_SEQUENCE, _SCRYPT + _tlv(_SEQUENCE, _tlv(_OCTETS, salt) + costs))
    cipher = _tlv(_SEQUENCE, _AES_256_CBC + _tlv(_OCTETS, iv))
    return _tlv(_SEQUENCE, _PBES2 + _tlv(_SEQUENCE, kdf + cipher))


def _split(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(salt, iv, ciphertext), found by building the template again around the two values."""
    model = _header(bytes(SALT_BYTES), bytes(_IV_BYTES))
    salt_at = model.index(_tlv(_OCTETS, bytes(SALT_BYTES))) + 2
    iv_at = len(model) - _IV_BYTES
    body = _content(_SEQUENCE, data)
    if body is None or len(body) < len(model):
        return None
    salt, iv = body[salt_at : salt_at + SALT_BYTES], body[iv_at : iv_at + _IV_BYTES]
    if body[: len(model)] != _header(salt, iv):
        return None
    sealed = _content(_OCTETS, body[len(model) :])
    return None if sealed is None else (salt, iv, sealed)


def _content(tag: int, data: bytes) -> bytes | None:
    """What a TLV of this tag that fills `data` exactly holds (definite length of up to two bytes)."""
    for skip in (2, 3, 4):
        if _tlv(tag, data[skip:]) == data:
            return data[skip:]
    return None


def _integer(value: int) -> bytes:
    return _tlv(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
