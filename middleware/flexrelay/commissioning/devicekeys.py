"""A new device's own keys and its signed create operation, in files for whoever installs the device.

`<name>.pem` is the key that signs readings, `<name>.next.pem` the one that its log has committed to for the first
rotation, `<name>.json` the signed operation. They are not the gateway's: no gateway signs with them, and they are not
encrypted with its passphrase. Move them to the device.
"""

import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from flexrelay.commissioning.claims import claim_code, signed_create
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.identity.keyfile import PrivateKey, generate, sign_with, write_private
from flexrelay_schemas.canonical import canonical, parse
from flexrelay_schemas.did import Create, key_hash, operation_message
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.keys import multikey


def proven_operation(
    folder: Path, name: str, network: str, controller: str, given: Path | None = None
) -> tuple[Create, str, Path]:
    """(operation, proof, file of the signing key): made once, and the same again when asked again.

    `given` is the device's own private key (PEM, P-256 or Ed25519); without it one is generated into `folder`.
    Raises CommissioningError, KeyFileError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = folder / f"{name}.json"
    path = given or folder / f"{name}.pem"
    if document.exists():
        operation, proof = stored_operation(document)
        private = read_key(path)
        if multikey(private.public_key()) != operation.key or operation.controller != controller:
            raise CommissioningError(f"{document} is of another key or controller: choose another name for the device")
        return operation, proof, path
    private = _kept(path) if given is None else read_key(given)
    following = _kept(folder / f"{name}.next.pem")
    operation = Create(
        network=network,
        kind="device",
        controller=controller,
        key=multikey(private.public_key()),
        next_key_hash=key_hash(multikey(following.public_key())),
        nonce=secrets.token_hex(16),
    )
    proof = b64u(sign_with(private, operation_message(operation)))
    write_private(document, canonical({"operation": operation.model_dump(), "proof": proof}) + b"\n", replace=False)
    return operation, proof, path


def read_key(path: Path) -> PrivateKey:
    """An unencrypted private key in PEM. Raises CommissioningError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise CommissioningError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CommissioningError(f"{path} is not an unencrypted private key in PEM form") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise CommissioningError(f"{path} holds a key of another kind; P-256 and Ed25519 are supported")


def claim_code_of(path: Path) -> str:
    """The code of a device's public or private key (PEM), or of its signed create operation (JSON). Raises
    CommissioningError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CommissioningError(f"{path}: {error.strerror}") from None
    if b"-----BEGIN" not in data:
        return claim_code(stored_operation(path)[0].key)
    if b"PUBLIC KEY" not in data:
        return claim_code(multikey(read_key(path).public_key()))
    try:
        public = serialization.load_pem_public_key(data)
        if not isinstance(public, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise ValueError("P-256 and Ed25519 are supported")
        return claim_code(multikey(public))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CommissioningError(f"{path} is not a public key that is known here: {error}") from None


def _kept(path: Path) -> PrivateKey:
    if path.exists():  # an interrupted run made it
        return read_key(path)
    private = generate()
    data = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(path, data, replace=False)
    return private


def stored_operation(path: Path) -> tuple[Create, str]:
    """(operation, proof) of a file. Raises CommissioningError: not there, or not a signed create operation."""
    try:
        signed = signed_create(parse(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise CommissioningError(f"{path}: {error}") from None
    return signed.operation, signed.proof
