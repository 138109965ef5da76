"""The port through which everything is signed: a key file, a PKCS#11 token or a TPM behind the same three names."""

from typing import Protocol


class Signer(Protocol):
    """Signs for one key version of one DID."""

    @property
    def did(self) -> str: ...

    @property
    def key_version(self) -> int: ...

    @property
    def public_key(self) -> str:
        """Multikey text."""
        ...

    async def sign(self, message: bytes) -> bytes:
        """64 bytes: raw r ‖ s for P-256 over SHA-256, RFC 8032 for Ed25519."""
        ...
