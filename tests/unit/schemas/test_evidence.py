"""Evidence documents: fixed hash of a window, forms, and what is refused."""

import hashlib
from typing import Any

import pytest
from pydantic import ValidationError

from flexrelay_schemas.canonical import canonical, parse
from flexrelay_schemas.encoding import b64u, b64u_decode
from flexrelay_schemas.evidence import InclusionProof, Path, Window

DID = "did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC"
WINDOW = Window(device=DID, date="2016-05-20", isp=49, revision=1, leaves=1, root="cd" * 32)
PATH = Path(index=2, size=5, hashes=("ab" * 32, "cd" * 32))
PROOF = InclusionProof(
    payload=b64u(b'{"v":1}'),
    salt=b64u(bytes(16)),
    in_window=Path(index=0, size=1, hashes=()),
    window=WINDOW,
    in_anchor=PATH,
    org="dso",
    anchor_id="2016-05-20.49",
)


def test_the_leaf_of_a_window_is_fixed() -> None:
    text = (
        f'{{"date":"2016-05-20","device":"{DID}","isp":49,"leaves":1,"previous":"","revision":1,'
        f'"root":"{"cd" * 32}","v":1}}'
    )
    assert WINDOW.leaf_hash() == hashlib.sha256(b"\x00" + text.encode()).digest()
    assert WINDOW.leaf_hash().hex() == "e9724e231567dc877c32d38321b4fdd04a265ab8f6c38d0d5b1288506cd8d0e7"


@pytest.mark.parametrize(
    "change",
    [{"isp": 50}, {"date": "2016-05-21"}, {"revision": 2}, {"leaves": 2}, {"root": "ce" * 32}, {"previous": "00" * 32}],
)
def test_every_field_of_a_window_is_in_its_leaf(change: dict[str, Any]) -> None:
    assert WINDOW.model_copy(update=change).leaf_hash() != WINDOW.leaf_hash()


def test_a_proof_travels_as_canonical_json() -> None:
    data = canonical(PROOF.model_dump())
    assert InclusionProof.model_validate(parse(data)) == PROOF
    assert InclusionProof.model_validate_json(data) == PROOF
    assert b64u_decode(PROOF.payload) == b'{"v":1}'


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payload": "a+b"}, "payload"),
        ({"payload": "e30="}, "payload"),
        ({"salt": b64u(bytes(15))}, "salt"),
        ({"salt": b64u(bytes(17))}, "salt"),
        ({"salt": "A" * 21 + "B"}, "salt"),
        ({"org": "../dso"}, "org"),
        ({"anchor_id": "a/b"}, "anchor_id"),
        ({"anchor_id": ""}, "anchor_id"),
        ({"in_window": {"index": -1, "size": 1, "hashes": []}}, "in_window"),
        ({"in_window": {"index": 0, "size": 0, "hashes": []}}, "in_window"),
        ({"in_anchor": {"index": 0, "size": 1, "hashes": ["AB" * 32]}}, "in_anchor"),
        ({"in_anchor": {"index": 0, "size": 1, "hashes": ["ab" * 31]}}, "in_anchor"),
        ({"window": {**WINDOW.model_dump(), "revision": 0}}, "window"),
        ({"window": {**WINDOW.model_dump(), "leaves": 0}}, "window"),
        ({"window": {**WINDOW.model_dump(), "previous": "none"}}, "window"),
        ({"v": 2}, "v"),
        ({"comment": "trust me"}, "comment"),
    ],
)
def test_a_proof_names_what_is_wrong(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        InclusionProof.model_validate({**PROOF.model_dump(), **change})
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


def test_documents_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        WINDOW.isp = 50  # type: ignore[misc]  # the point of the test
