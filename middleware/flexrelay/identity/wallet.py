"""A folder of identities: for each DID a public description and one encrypted key file per key version.

`<scid>.json` says what the identity is and where its log stands; `<scid>.v<n>.pem` are the keys. The key of the version
after the current one exists from the first moment (pre-rotation). Every step that makes a key writes the file before
anything names it, so a crash leaves at worst an unused file.
"""

import secrets
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError

from flexrelay.identity.keyfile import (
    Algorithm,
    KeyBox,
    KeyFileError,
    LocalSigner,
    PrivateKey,
    generate,
    sign_with,
    write_private,
)
from flexrelay_schemas.canonical import canonical, parse
from flexrelay_schemas.did import (
    Create,
    Did,
    Hash,
    Kind,
    Multikey,
    Rotate,
    key_hash,
    operation_hash,
    operation_message,
    split_did,
)
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.keys import multikey, verify
from flexrelay_schemas.model import Model


class WalletError(Exception):
    """The wallet has no such identity, or its description is damaged."""


class Identity(Model):
    """What the wallet knows about a DID; nothing secret. `pending` is a rotation that is not confirmed yet."""

    did: Did
    label: Annotated[str, Field(max_length=64)] = ""
    algorithm: Algorithm
    operation: Create
    version: Annotated[int, Field(ge=1)] = 1
    key: Multikey
    next_key_hash: Hash
    last_hash: Hash
    pending: Rotate | None = None

    @property
    def kind(self) -> Kind:
        return self.operation.kind

    @property
    def controller(self) -> str:
        return self.operation.controller


class Wallet:
    """The identities in one folder, opened with one passphrase."""

    def __init__(self, folder: Path, passphrase: SecretStr) -> None:
        self._folder = folder
        self._box = KeyBox(passphrase)
        self._open: dict[tuple[str, int], LocalSigner] = {}
        self._labels: dict[str, str] = {}
        self._indexed: set[str] = set()

    def create(
        self, network: str, kind: Kind, *, controller: str = "", label: str = "", algorithm: Algorithm = "p256"
    ) -> Identity:
        """A new identity with its first key and its pre-rotated next one. It is not on the ledger yet."""
        if label and self.find(label) is not None:
            raise WalletError(f"the wallet {self._folder} has an identity labelled {label!r} already")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        first, following = generate(algorithm), generate(algorithm)
        operation = Create(
            network=network,
            kind=kind,
            controller=controller,
            key=multikey(first.public_key()),
            next_key_hash=key_hash(multikey(following.public_key())),
            nonce=secrets.token_hex(16),
        )
        did = operation.did()
        self._box.write(self._key_path(did, 1), first)
        self._box.write(self._key_path(did, 2), following)
        identity = Identity(
            did=did,
            label=label,
            algorithm=algorithm,
            operation=operation,
            key=operation.key,
            next_key_hash=operation.next_key_hash,
            last_hash=operation_hash(operation),
        )
        self._save(identity)
        return identity

    def identities(self) -> list[Identity]:
        """All identities, ordered by label and DID. Raises WalletError for a damaged description."""
        if not self._folder.is_dir():
            return []
        found = [self._load(path) for path in sorted(self._folder.glob("z*.json"))]
        return sorted(found, key=lambda identity: (identity.label, identity.did))

    def find(self, label: str) -> Identity | None:
        """The identity with this label, or None."""
        for path in sorted(self._folder.glob("z*.json")):
            if path.name not in self._indexed:  # labels never change, so each description is read once for its label
                identity = self._load(path)
                if identity.label:
                    self._labels.setdefault(identity.label, identity.did)
                self._indexed.add(path.name)
        did = self._labels.get(label)
        return None if did is None else self.get(did)

    def get(self, did: str) -> Identity:
        """Raises WalletError for a DID that is not in this wallet."""
        path = self._path(did)
        if not path.is_file():
            raise WalletError(f"the wallet {self._folder} does not hold {did}")
        return self._load(path)

    def signer(self, did: str) -> LocalSigner:
        """The signer of the identity's current key. Raises WalletError, KeyFileError."""
        identity = self.get(did)
        return self._signer(did, identity.version, identity.key)

    async def proven(self, did: str) -> dict[str, Any]:
        """{operation, proof} of the create operation, for registering the identity.

        Raises WalletError once the first key is gone (after a rotation it may have been removed).
        """
        identity = self.get(did)
        signature = await self._signer(did, 1, identity.operation.key).sign(operation_message(identity.operation))
        return {"operation": identity.operation.model_dump(), "proof": b64u(signature)}

    async def begin_rotation(self, did: str) -> dict[str, Any]:
        """{operation, proof} for `identity.rotate`. Until `finish_rotation` the old key stays the current one; asked
        again, the same operation comes again (the one before may have reached the ledger)."""
        identity = self.get(did)
        operation = identity.pending or self._next(identity)
        if identity.pending is None:
            self._save(identity.model_copy(update={"pending": operation}))
        key = self._read(did, operation.version)
        return {"operation": operation.model_dump(), "proof": b64u(sign_with(key, operation_message(operation)))}

    def finish_rotation(self, did: str) -> Identity:
        """The rotation stands on the ledger: the new key is the current one from now on. Raises WalletError."""
        identity = self.get(did)
        if identity.pending is None:
            raise WalletError(f"no rotation of {did} has begun")
        changed = identity.model_copy(
            update={
                "version": identity.pending.version,
                "key": identity.pending.key,
                "next_key_hash": identity.pending.next_key_hash,
                "last_hash": operation_hash(identity.pending),
                "pending": None,
            }
        )
        self._save(changed)
        return changed

    def _next(self, identity: Identity) -> Rotate:
        current = self._read(identity.did, identity.version + 1)
        if key_hash(multikey(current.public_key())) != identity.next_key_hash:
            raise WalletError(f"the next key of {identity.did} is not the one that its log has committed to")
        path = self._key_path(identity.did, identity.version + 2)
        if path.exists():  # a crash after writing it and before naming it
            following = self._box.read(path)
        else:
            following = generate(identity.algorithm)
            self._box.write(path, following)
        return Rotate(
            did=identity.did,
            version=identity.version + 1,
            previous=identity.last_hash,
            key=multikey(current.public_key()),
            next_key_hash=key_hash(multikey(following.public_key())),
        )

    def _signer(self, did: str, version: int, key: str) -> LocalSigner:
        signer = self._open.get((did, version))
        if signer is None:
            signer = LocalSigner(self._read(did, version), did, version)
            if signer.public_key != key:
                raise WalletError(f"the key file of {did} version {version} holds another key than its log")
            self._open[did, version] = signer
        return signer

    def _read(self, did: str, version: int) -> PrivateKey:
        """The private key, tried once: a damaged file may still open and hold another secret beside the public key."""
        path = self._key_path(did, version)
        private = self._box.read(path)
        if not verify(
            multikey(private.public_key()), sign_with(private, b"flexrelay-self-test"), b"flexrelay-self-test"
        ):
            raise KeyFileError(f"{path} is damaged: its private and public keys do not match")
        return private

    def _path(self, did: str) -> Path:
        try:
            return self._folder / f"{split_did(did)[1]}.json"
        except ValueError as error:
            raise WalletError(str(error)) from None

    def _key_path(self, did: str, version: int) -> Path:
        return self._folder / f"{split_did(did)[1]}.v{version}.pem"

    def _load(self, path: Path) -> Identity:
        try:
            identity = Identity.model_validate(parse(path.read_bytes()))
        except OSError as error:
            raise WalletError(f"{path}: {error.strerror}") from None
        except (ValidationError, ValueError):
            raise WalletError(f"{path} is not the description of an identity") from None
        if self._path(identity.did) != path or identity.operation.did() != identity.did:
            raise WalletError(f"{path} describes another identity than its name says")
        return identity

    def _save(self, identity: Identity) -> None:
        write_private(self._path(identity.did), canonical(identity.model_dump()), replace=True)


__all__ = ["Identity", "KeyFileError", "Wallet", "WalletError"]
