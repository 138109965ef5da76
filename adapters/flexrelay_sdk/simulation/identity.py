"""A simulated device's DID and key, from the files that `flexrelay device add` makes: it signs its readings itself."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import Create, split_did
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk.simulation.simulator import Sample


@dataclass(frozen=True)
class SimulatedIdentity:
    """`sign` gives Ed25519's 64 bytes, or P-256's r‖s over SHA-256."""

    did: str
    sign: Callable[[bytes], bytes]
    key_version: int = 1

    @property
    def scid(self) -> str:
        """The last part of the DID: the device's name on transports."""
        return split_did(self.did)[1]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """<name>.pem and <name>.json. Raises OSError, ValueError naming the file."""
        document, pem = folder / f"{name}.json", folder / f"{name}.pem"
        try:
            did = Create(**json.loads(document.read_text())["operation"]).did()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{document} holds no create operation: {error}") from None
        key = load_pem_private_key(pem.read_bytes(), None)
        if isinstance(key, Ed25519PrivateKey):
            return cls(did, key.sign)
        if isinstance(key, EllipticCurvePrivateKey) and key.curve.name == "secp256r1":
            return cls(did, lambda message: _raw(key.sign(message, ECDSA(hashes.SHA256()))))
        raise ValueError(f"{pem}: neither an Ed25519 nor a P-256 key")

    def signed(self, sample: Sample) -> bytes:
        """The native payload of a reading."""
        reading = Reading(
            did=self.did,
            key_version=self.key_version,
            network=split_did(self.did)[0],
            observed_at=sample.observed_at,
            seq=sample.seq,
            registers=sample.registers,
        )
        signature = b64u(self.sign(reading.message()))
        return canonical(SignedReading(reading=reading, signature=signature).model_dump())


def _raw(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
