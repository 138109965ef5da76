"""Role credentials: the suites against the W3C's test vectors, issuing, and the forms of time."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.contracts import Party

from flexrelay.identity import LocalSigner, issue_role_credential
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.credentials import (
    SignedRoleCredential,
    data_integrity_hash,
    instant,
    instant_text,
    suite_of,
    verify_credential,
)
from flexrelay_schemas.encoding import multibase_decode
from flexrelay_schemas.keys import verify

CONTEXTS = ["https://www.w3.org/ns/credentials/v2", "https://www.w3.org/ns/credentials/examples/v2"]
ISSUER = "https://vc.example/issuers/5678"
EDDSA = "z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"
ECDSA = "zDnaepBuvsQ8cpsWrVKw8fbpGpvPeNSjVPTWoq6cRqaYzBKVP"

DOCUMENT = {
    "@context": CONTEXTS,
    "id": "urn:uuid:58172aac-d8ba-11ed-83dd-0b3aef56cc33",
    "type": ["VerifiableCredential", "AlumniCredential"],
    "name": "Alumni Credential",
    "description": "A minimum viable example of an Alumni Credential.",
    "issuer": ISSUER,
    "validFrom": "2023-01-01T00:00:00Z",
    "credentialSubject": {"id": "did:example:abcdefgh", "alumniOf": "The School of Examples"},
}


def options(suite: str, method: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "DataIntegrityProof",
        "cryptosuite": suite,
        "created": "2023-02-24T23:36:38Z",
        "verificationMethod": method,
        "proofPurpose": "assertionMethod",
        **more,
    }


# Published examples: W3C vc-di-eddsa, TestVectors/eddsa-jcs-2022; W3C vc-di-ecdsa, TestVectors/ecdsa-jcs-2019-p256
# (an older one, whose proof has no @context of its own: what is hashed is the proof as it stands).
VECTORS = {
    "eddsa-jcs-2022": (
        EDDSA,
        options("eddsa-jcs-2022", f"{ISSUER}#{EDDSA}", **{"@context": CONTEXTS}),
        "z63t83Y53KfzJ5ZosfKTnqfMcKB2dmTrfjSaQjeNNjAD5srBowQfmWqeRb8rRjmeEuCBEsddF9LsVogtuTsijJKh4",
    ),
    "ecdsa-jcs-2019": (
        ECDSA,
        options("ecdsa-jcs-2019", f"did:key:{ECDSA}#{ECDSA}"),
        "zq6PrUMCtqY5obCSsrQxuFJdGffCDxvFuopdZiBPUBRTFEs1VVsBZi8YiEwVWgHYrXxoV93gBHqGDBtQLPFxpZxz",
    ),
}
ECDSA_HASH = (
    "9c4b552d65fcb106b6b27ec2436d8ae81b319afc7aeaab7964b2938cd120cec3"
    "59b7cb6251b8991add1ce0bc83107e3db9dbbab5bd2c28f687db1a03abc92f19"
)


@pytest.mark.parametrize("suite", VECTORS)
def test_published_proofs_verify(suite: str) -> None:
    key, proof, value = VECTORS[suite]
    signature = multibase_decode(value)
    assert suite_of(key) == suite
    assert verify(key, signature, data_integrity_hash(DOCUMENT, proof))
    assert not verify(key, signature, data_integrity_hash(DOCUMENT | {"name": "Other"}, proof))
    assert not verify(key, signature, data_integrity_hash(DOCUMENT, proof | {"created": "2023-02-24T23:36:39Z"}))


def test_published_hash() -> None:
    assert data_integrity_hash(DOCUMENT, VECTORS["ecdsa-jcs-2019"][1]).hex() == ECDSA_HASH


async def issued(party: Party, holder: Party, **change: Any) -> SignedRoleCredential:
    given_terms = {
        "network": "test",
        "subject": holder.did,
        "role": "aggregator",
        "markets": ["congestion"],
        "valid_from_ms": 1_700_000_000_000,
        "valid_until_ms": 1_800_000_000_000,
        "created_ms": 1_700_000_000_000,
    }
    return await issue_role_credential(LocalSigner(party.private, party.did, 1), **given_terms | change)


@pytest.mark.parametrize("p256", [True, False])
async def test_issued_credentials_verify_and_read_back(p256: bool) -> None:
    issuer, subject = Party.new(p256=p256), Party.new()
    credential = await issued(issuer, subject)
    document = json.loads(canonical(credential.encode()))
    assert document["proof"]["@context"] == document["@context"]
    assert document["proof"]["verificationMethod"] == f"{issuer.did}#v1"
    again = SignedRoleCredential.model_validate(document)
    assert again == credential
    assert again.hash() == credential.hash()
    assert verify_credential(again, issuer.operation.key)
    assert not verify_credential(again, subject.operation.key)
    assert not verify_credential(again, "z123")


async def test_bad_terms() -> None:
    issuer, subject = Party.new(), Party.new()
    for change in ({"role": "king"}, {"markets": []}, {"markets": ["a b"]}, {"valid_until_ms": 0}, {"subject": "me"}):
        with pytest.raises(ValidationError):
            await issued(issuer, subject, **change)


async def test_proof_names_a_version_of_the_issuer() -> None:
    issuer, subject = Party.new(), Party.new()
    credential = await issued(issuer, subject)
    assert credential.key_version() == 1
    for method in (f"{subject.did}#v1", issuer.did, f"{issuer.did}#v", f"{issuer.did}#v1x", f"{issuer.did}#v12345678"):
        proof = credential.proof.model_copy(update={"verificationMethod": method})
        with pytest.raises(ValueError, match="verificationMethod"):
            credential.model_copy(update={"proof": proof}).key_version()


@given(st.integers(0, 253_402_300_799_999))
def test_times_come_back(wall_ms: int) -> None:
    assert instant(instant_text(wall_ms)) == wall_ms


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00+01:00", "2026-02-30T00:00:00Z",
     "2026-01-01T24:00:00Z", "2026-01-01T00:00:00.1Z", "٢٠٢٦-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n",
     "2026-01-01T00:00:60Z"],
)  # fmt: skip
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|day|hour|second|range|match|unconverted"):
        instant(text)
