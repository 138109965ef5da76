"""Role credentials: W3C Verifiable Credentials 2.0 with Data Integrity proofs `ecdsa-jcs-2019` and `eddsa-jcs-2022`.

What is signed: SHA-256(JCS(proof without its value)) ‖ SHA-256(JCS(document without proof)), 64 bytes; the proof
repeats the document's @context, as the suites ask (W3C vc-di-ecdsa §3.3, vc-di-eddsa §3.3). Building and checking
only; signing is a Signer's. Terms are mapped by an inline @vocab, so that no context document has to be fetched.
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import Field, StringConstraints, field_validator, model_validator

from flexrelay_schemas.canonical import canonical, digest
from flexrelay_schemas.did import Did, Multikey
from flexrelay_schemas.did_document import method_id
from flexrelay_schemas.encoding import multibase, multibase_decode
from flexrelay_schemas.keys import public_key, verify
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.reading import NetworkId

CONTEXT: Final[tuple[Any, ...]] = ("https://www.w3.org/ns/credentials/v2", {"@vocab": "urn:flexrelay:vocab:v1#"})
TYPES: Final = ("VerifiableCredential", "FlexrelayRoleCredential")

Role = Literal[
    "tso",
    "dso",
    "brp",
    "bsp",
    "aggregator",
    "prosumer",
    "consumer",
    "meter_operator",
    "market_operator",
    "regulator",
    "device",
]
Market = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9._:-]{1,64})$")]
"""A market's name, or "*" for all."""

Suite = Literal["ecdsa-jcs-2019", "eddsa-jcs-2022"]
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{3}))?Z", re.ASCII)


def instant(text: str) -> int:
    """UTC ms of a dateTimeStamp `YYYY-MM-DDThh:mm:ss[.mmm]Z`. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a UTC time like 2026-01-31T12:00:00Z: {text[:40]!r}")
    seconds = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int((seconds - datetime.fromtimestamp(0, UTC)).total_seconds()) * 1000 + int(match[2] or 0)


def instant_text(wall_ms: int) -> str:
    """The inverse of `instant`, always with milliseconds."""
    whole = datetime.fromtimestamp(wall_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{wall_ms % 1000:03d}Z"


def _timestamp(text: str) -> str:
    instant(text)
    return text


class Subject(Model):
    """Who holds which role, on which network, for which markets."""

    id: Did
    network: NetworkId
    role: Role
    markets: Annotated[Items[Market], Field(min_length=1, max_length=64)]


class ProofOptions(Model):
    """A Data Integrity proof without its value. `verificationMethod` is the issuer's DID URL `…#v<version>`."""

    context: Items[Any] = Field(default=CONTEXT, alias="@context")
    type: Literal["DataIntegrityProof"] = "DataIntegrityProof"
    cryptosuite: Suite
    created: str
    verificationMethod: Annotated[str, StringConstraints(max_length=140)]  # noqa: N815 - the standard's name
    proofPurpose: Literal["assertionMethod"] = "assertionMethod"  # noqa: N815

    _created = field_validator("created")(_timestamp)

    @model_validator(mode="after")
    def _fixed(self) -> "ProofOptions":
        if self.context != CONTEXT:
            raise ValueError("the proof's @context is not the credential's")
        return self

    def encode(self) -> dict[str, Any]:
        """The JSON object."""
        return self.model_dump(by_alias=True)


class Proof(ProofOptions):
    proofValue: Annotated[str, StringConstraints(pattern=r"^z[1-9A-HJ-NP-Za-km-z]{60,100}$")]  # noqa: N815


class RoleCredential(Model):
    """The unsigned credential. The field names are the standard's."""

    context: Items[Any] = Field(default=CONTEXT, alias="@context")
    type: Items[str] = TYPES
    issuer: Did
    validFrom: str  # noqa: N815
    validUntil: str  # noqa: N815
    credentialSubject: Subject  # noqa: N815

    _times = field_validator("validFrom", "validUntil")(_timestamp)

    @model_validator(mode="after")
    def _fixed(self) -> "RoleCredential":
        if self.context != CONTEXT or self.type != TYPES:
            raise ValueError("@context and type are not those of a flexrelay role credential")
        if instant(self.validFrom) >= instant(self.validUntil):
            raise ValueError("validFrom is not before validUntil")
        return self

    def document(self) -> dict[str, Any]:
        """The JSON document without a proof."""
        return self.model_dump(by_alias=True, include=set(RoleCredential.model_fields))


class SignedRoleCredential(RoleCredential):
    """A credential with its proof, as it travels."""

    proof: Proof

    def options(self) -> ProofOptions:
        """The proof without its value."""
        return ProofOptions.model_validate(self.proof.model_dump(by_alias=True, exclude={"proofValue"}))

    def encode(self) -> dict[str, Any]:
        """The JSON document with its proof."""
        return {**self.document(), "proof": self.proof.encode()}

    def hash(self) -> str:
        """Hex SHA-256 of the canonical signed document: the credential's name on the ledger."""
        return digest(self.encode())

    def key_version(self) -> int:
        """The version of the issuer's key that the proof names. Raises ValueError when it names another's key."""
        head, _, number = self.proof.verificationMethod.rpartition("#v")
        if head != self.issuer or not (number.isascii() and number.isdigit()) or len(number) > 7:
            raise ValueError("the proof's verificationMethod is not a key version of the issuer")
        return int(number)


def suite_of(key: str) -> Suite:
    """The cryptosuite of a Multikey. Raises ValueError for a key that is unknown here."""
    return "eddsa-jcs-2022" if isinstance(public_key(key), ed25519.Ed25519PublicKey) else "ecdsa-jcs-2019"


def proof_options(issuer: str, version: int, key: Multikey, created_ms: int) -> ProofOptions:
    """The options of a proof by the issuer's key version."""
    return ProofOptions(
        cryptosuite=suite_of(key), created=instant_text(created_ms), verificationMethod=method_id(issuer, version)
    )


def hash_data(credential: RoleCredential, options: ProofOptions) -> bytes:
    """The 64 bytes that the issuer signs."""
    return data_integrity_hash(credential.document(), options.encode())


def data_integrity_hash(document: dict[str, Any], options: dict[str, Any]) -> bytes:
    """hash(proof options) ‖ hash(document) of the JCS suites, for any document without its proof."""
    return hashlib.sha256(canonical(options)).digest() + hashlib.sha256(canonical(document)).digest()


def sealed(credential: RoleCredential, options: ProofOptions, signature: bytes) -> SignedRoleCredential:
    """The credential with its proof."""
    proof = {**options.encode(), "proofValue": multibase(signature)}
    return SignedRoleCredential.model_validate({**credential.document(), "proof": proof})


def verify_credential(credential: SignedRoleCredential, key: str) -> bool:
    """Whether the proof is by this Multikey. Dates, trust and status are the caller's."""
    try:
        if suite_of(key) != credential.proof.cryptosuite:
            return False
        signature = multibase_decode(credential.proof.proofValue)
        return verify(key, signature, hash_data(credential, credential.options()))
    except ValueError:
        return False
