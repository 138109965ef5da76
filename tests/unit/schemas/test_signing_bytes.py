"""Fixed vectors: the very bytes that are signed. A device in another language must produce the same; never change one
without a new version of the document."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic import ValidationError

from flexrelay_schemas.canonical import CanonicalError, canonical, parse
from flexrelay_schemas.did import Create, Rotate, key_hash, operation_hash, operation_message, split_did
from flexrelay_schemas.encoding import b64u, b64u_decode, multibase_decode
from flexrelay_schemas.intent import Intent, SignedIntent
from flexrelay_schemas.keys import multikey, verify
from flexrelay_schemas.reading import (
    AnchoredAttestation,
    Attestation,
    Attested,
    Reading,
    SignedAttestation,
    SignedReading,
    parse_evidence,
)

PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = "z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd"
NEXT_KEY = "z6MkneMkZqwqRiU5mJzSG3kDwzt9P8C59N4NGTfBLfSGE7c7"
DID = "did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC"
NOON = 1463745600000

CREATE = Create(
    network="demo", kind="actor", key=KEY, next_key_hash=key_hash(NEXT_KEY), nonce="00112233445566778899aabbccddeeff"
)
ROTATE = Rotate(did=DID, version=2, previous=operation_hash(CREATE), key=NEXT_KEY, next_key_hash=key_hash(KEY))
INTENT = Intent(
    network="demo",
    actor=DID,
    key_version=1,
    intent_id="i-1",
    function="market.offer",
    args={"z": [1, None, True], "é": {"b": "ü", "a": -5}, "\U0001f600": 1, "\ufb33": 2},
    deadline=NOON,
)
READING = Reading(
    did=DID,
    key_version=1,
    network="demo",
    observed_at=NOON,
    registers={"power_w": -4321, "import_j": 0, "export_j": 123456789},
    seq=7,
)
ATTESTATION = Attestation(
    did=DID,
    frame_sha256="ab" * 32,
    gateway=DID,
    key_version=3,
    network="demo",
    observed_at=NOON,
    registers={"export_j": 5},
)

VECTORS = {
    "create": (
        operation_message(CREATE),
        'flexrelay-did-v1{"controller":"","key":"z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd","kind":"actor",'
        '"network":"demo","next_key_hash":"1fbdc498521564603be16baa6b50ffc91e00c19672deacf60bb2928ede0977bc",'
        '"nonce":"00112233445566778899aabbccddeeff","op":"create","v":1}',
        "EojTHiS26z4lTx9GEF6ATWD9pPawg2Bdm7gyrm9Wr2aeadSPcvzh4R8FFz7lUh8B7h6OU-im0BrU_o9U2VEPAA",
    ),
    "intent": (
        INTENT.message(),
        'flexrelay-intent-v1{"actor":"did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC",'
        '"args":{"z":[1,null,true],"é":{"a":-5,"b":"ü"},"\U0001f600":1,"\ufb33":2},"deadline":1463745600000,'
        '"function":"market.offer","intent_id":"i-1","key_version":1,"network":"demo","v":1}',
        "NFJLgLkmb2uyLTih4egEr-83oNE6A0hmHqulz8pumdVjf4od77MYk8DCvc8B_w26ItFX5StvnSVNMcpBJx02Aw",
    ),
    "reading": (
        READING.message(),
        'flexrelay-reading-v1{"did":"did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC",'
        '"key_version":1,"network":"demo","observed_at":1463745600000,'
        '"registers":{"export_j":123456789,"import_j":0,"power_w":-4321},"seq":7}',
        "0hflDnueVDEKrvxmHWYaoTtGH1_uYl3dMZhBStHfd3s9Mi2aNppIPZQEANPbP07UYdahHDgNS-Haq5H36m6mBA",
    ),
    "attestation": (
        ATTESTATION.message(),
        'flexrelay-attestation-v1{"did":"did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC",'
        f'"frame_sha256":"{"ab" * 32}",'
        '"gateway":"did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC","key_version":3,'
        '"network":"demo","observed_at":1463745600000,"registers":{"export_j":5}}',
        "ZO5LKqSTgegL9GvtUUSaurOMEq6xMOLlN18ovKjWvAnTCwzVQrFwXkblALqp3iUGfRlBSSPX_rXlhetlQW6CDg",
    ),
}


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_signing_bytes_and_signature(name: str) -> None:
    message, text, signature = VECTORS[name]
    assert message.decode() == text
    assert b64u(PRIVATE.sign(message)) == signature  # Ed25519 is deterministic
    assert verify(KEY, b64u_decode(signature), message)


def test_no_two_kinds_of_document_share_signing_bytes() -> None:
    prefixes = [message[: message.index(b"{")] for message, _, _ in VECTORS.values()]
    assert len(set(prefixes)) == len(prefixes)
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)


# --- DID operations


def test_the_identifier_commits_to_the_first_operation() -> None:
    assert multikey(PRIVATE.public_key()) == KEY
    assert CREATE.did() == DID
    multihash = multibase_decode(split_did(DID)[1])
    assert multihash == b"\x12\x20" + hashlib.sha256(operation_message(CREATE)[len("flexrelay-did-v1") :]).digest()
    for change in ({"key": NEXT_KEY}, {"nonce": "0" * 32}, {"kind": "gateway"}, {"next_key_hash": "0" * 64}):
        assert CREATE.model_copy(update=change).did() != DID


def test_the_log_is_a_chain_with_a_key_committed_before() -> None:
    assert operation_hash(CREATE) == "25adb54fccd70306b6c54be8f3cc95c985ed033e83956ae75ffe8e4ff759bf59"
    assert operation_hash(ROTATE) == "72cf13590bf6806c449c59df77bd812d77f61e2e249b8b3e1c92c4f0bdfbd150"
    assert ROTATE.previous == operation_hash(CREATE)
    assert key_hash(ROTATE.key) == CREATE.next_key_hash == hashlib.sha256(NEXT_KEY.encode()).hexdigest()


@pytest.mark.parametrize(
    "did",
    ["", "did:flexrelay:demo", "did:web:demo:" + DID[-47:], DID + "\n", DID.upper(), DID[:-1] + "0", " " + DID],
)
def test_what_is_no_did(did: str) -> None:
    with pytest.raises(ValueError, match="not a did:flexrelay identifier"):
        split_did(did)
    with pytest.raises(ValidationError):
        ROTATE.model_validate({**ROTATE.model_dump(), "did": did})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"v": 2}, "v"),
        ({"op": "rotate"}, "op"),
        ({"kind": "person"}, "kind"),
        ({"network": "Demo"}, "network"),
        ({"network": "demo\n"}, "network"),
        ({"key": KEY + "\n"}, "key"),
        ({"key": 5}, "key"),
        ({"next_key_hash": "AB" * 32}, "next_key_hash"),
        ({"nonce": "00"}, "nonce"),
        ({"controller": "somebody"}, "controller"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_create_operation_names_what_is_wrong(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Create.model_validate({**CREATE.model_dump(), **change})
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


# --- documents on the wire

SIGNED_INTENT = SignedIntent(intent=INTENT, signature=VECTORS["intent"][2])
SIGNED_READING = SignedReading(reading=READING, signature=VECTORS["reading"][2])
SIGNED_ATTESTATION = SignedAttestation(attestation=ATTESTATION, signature=VECTORS["attestation"][2])
ATTESTED = AnchoredAttestation(
    attestation=Attested.model_validate(ATTESTATION.model_dump(exclude={"gateway", "key_version"}))
)


@pytest.mark.parametrize("document", [SIGNED_INTENT, SIGNED_READING, SIGNED_ATTESTATION, ATTESTED, CREATE, ROTATE])
def test_documents_come_back_from_their_canonical_bytes(document: Any) -> None:
    data = canonical(document.model_dump())
    assert type(document).model_validate(parse(data)) == document
    assert type(document).model_validate_json(data) == document


@pytest.mark.parametrize("document", [SIGNED_READING, SIGNED_ATTESTATION, ATTESTED])
def test_evidence_is_told_by_its_form(document: Any) -> None:
    found = parse_evidence(canonical(document.model_dump()))
    assert type(found) is type(document) and found == document


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"v": 2}, "v"),
        ({"key_version": 0}, "key_version"),
        ({"key_version": True}, "key_version"),
        ({"key_version": 1.0}, "key_version"),
        ({"intent_id": "a b"}, "intent_id"),
        ({"intent_id": ""}, "intent_id"),
        ({"intent_id": "i\n"}, "intent_id"),
        ({"function": "offer"}, "function"),
        ({"function": "__import__.os"}, None),
        ({"deadline": -1}, "deadline"),
        ({"deadline": "1463745600000"}, "deadline"),
        ({"deadline": 2**53}, "deadline"),
        ({"args": []}, "args"),
        ({"network": "Other Network"}, "network"),
        ({"surprise": None}, "surprise"),
    ],
)
def test_an_intent_names_what_is_wrong(change: dict[str, Any], field: str | None) -> None:
    if field is None:  # a well-formed name that no catalogue has
        assert Intent.model_validate({**INTENT.model_dump(), **change}).function == change["function"]
        return
    with pytest.raises(ValidationError) as caught:
        Intent.model_validate({**INTENT.model_dump(), **change})
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


def test_arguments_outside_the_profile_cannot_be_signed() -> None:
    with pytest.raises(CanonicalError, match="float"):
        INTENT.model_copy(update={"args": {"price": 1.5}}).message()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registers": {}}, "at least one register"),
        ({"registers": {"power_kw": 1}}, "unknown register 'power_kw'; known are"),
        ({"registers": {"import_j": -1}}, "import_j is negative"),
        ({"registers": {"power_w": 1.5}}, "integer"),
        ({"registers": {"power_w": 2**53}}, "less than or equal"),
        ({"registers": {"power_w": True}}, "integer"),
        ({"registers": {"power_w": "1"}}, "integer"),
        ({"seq": -1}, "greater than or equal"),
        ({"observed_at": 1.5}, "integer"),
        ({"network": "demo\n"}, "pattern"),
        ({"unit": "kW"}, "Extra inputs"),
    ],
)
def test_readings_and_attestations_name_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Reading.model_validate({**READING.model_dump(), **change})
    if "seq" not in change:
        with pytest.raises(ValidationError, match=message):
            Attestation.model_validate({**ATTESTATION.model_dump(), **change})


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + "A", lambda s: s[:-1] + "B", lambda s: s + "=="])
def test_a_signature_has_one_text(change: Any) -> None:
    signature = VECTORS["reading"][2]
    with pytest.raises(ValidationError, match="signature"):
        SignedReading(reading=READING, signature=change(signature))
