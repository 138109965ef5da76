"""Private keys in files: encrypted PKCS#8 (PEM), P-256 or Ed25519, written once with mode 0600.

The files open with other tools too (`openssl pkey -in …`). A passphrase is never logged and never part of an error.
"""

import base64
import os
import secrets
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from pydantic import SecretStr

from flexrelay.identity import pkcs8
from flexrelay_schemas.keys import multikey

Algorithm = Literal["p256", "ed25519"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_HEADER = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_FOOTER = b"-----END ENCRYPTED PRIVATE KEY-----"
_MAX_BYTES = 8192


class KeyFileError(Exception):
    """A key file cannot be read or written; the message names the file and what to do."""


class LocalSigner:
    """A `Signer` over a key in this process."""

    def __init__(self, private: PrivateKey, did: str, key_version: int) -> None:
        self._private = private
        self._did = did
        self._key_version = key_version
        self._public_key = multikey(private.public_key())

    @property
    def did(self) -> str:
        return self._did

    @property
    def key_version(self) -> int:
        return self._key_version

    @property
    def public_key(self) -> str:
        return self._public_key

    async def sign(self, message: bytes) -> bytes:
        return sign_with(self._private, message)

    def __repr__(self) -> str:
        return f"LocalSigner({self._did}#v{self._key_version})"

    def __reduce__(self) -> str:
        raise TypeError("a signer is not pickled: its private key would leave the process")


_ECDSA = ec.ECDSA(hashes.SHA256())


def generate(algorithm: Algorithm = "p256") -> PrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "p256" else ed25519.Ed25519PrivateKey.generate()


def sign_with(private: PrivateKey, message: bytes) -> bytes:
    """The signature in its wire form of 64 bytes."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(message)
    r, s = decode_dss_signature(private.sign(message, _ECDSA))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class KeyBox:
    """Writes and opens key files under one passphrase.

    All files that it writes share one random salt (each has its own IV), so that the slow derivation is done once.
    """

    def __init__(self, passphrase: SecretStr) -> None:
        self._passphrase = passphrase
        self._salt = secrets.token_bytes(pkcs8.SALT_BYTES)
        self._derived: dict[bytes, bytes] = {}

    def write(self, path: Path, private: PrivateKey) -> None:
        """Write a new key file. Raises KeyFileError when it exists: a private key is never overwritten."""
        plain = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        data = pkcs8.wrap(plain, self._derive(self._salt), self._salt, secrets.token_bytes(16))
        text = base64.encodebytes(data).replace(b"\n", b"")
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        write_private(path, b"\n".join((_HEADER, *lines, _FOOTER, b"")), replace=False)

    def read(self, path: Path) -> PrivateKey:
        """Open a key file. Raises KeyFileError: missing, readable by others, not encrypted, wrong passphrase, other
        kind of key. Files of other tools with other encryptions open as well."""
        try:
            if path.stat().st_mode & 0o027:
                raise KeyFileError(f"{path} can be read or written by other users; run: chmod 600 {path}")
            data = path.read_bytes()
        except OSError as error:
            raise KeyFileError(f"key file {path}: {error.strerror}") from None
        if len(data) > _MAX_BYTES or not data.lstrip().startswith(_HEADER):
            raise KeyFileError(f"{path} is not an encrypted PKCS#8 key file (PEM)")
        try:
            private = self._open(data)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyFileError(f"{path} does not open: the passphrase is wrong, or the file is damaged") from None
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return private
        if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
            return private
        raise KeyFileError(f"{path} holds a key of another kind; P-256 and Ed25519 are supported")

    def __repr__(self) -> str:
        return "KeyBox()"

    def _open(self, data: bytes) -> object:
        body = data.strip().removeprefix(_HEADER).removesuffix(_FOOTER)
        try:
            binary = base64.b64decode(b"".join(body.split()), validate=True)
        except ValueError:
            binary = b""
        salt = pkcs8.salt_of(binary)
        if salt is None:
            return serialization.load_pem_private_key(data, self._secret())
        return serialization.load_der_private_key(pkcs8.unwrap(binary, self._derive(salt)), None)

    def _derive(self, salt: bytes) -> bytes:
        key = self._derived.get(salt)
        if key is None:
            key = self._derived[salt] = pkcs8.derive(self._secret(), salt)
        return key

    def _secret(self) -> bytes:
        secret = self._passphrase.get_secret_value().encode()
        if not secret:
            raise KeyFileError("the passphrase is empty; set FLEXRELAY_PASSPHRASE")
        return secret


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file of mode 0600 so that after a crash it is there in full or not at all. Raises KeyFileError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise KeyFileError(f"{path} exists; private keys are never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None
